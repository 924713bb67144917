-- Whom the access tokens of an issuer are about: one user for each subject.
CREATE TABLE user_subjects (
    issuer text NOT NULL,
    subject text NOT NULL,
    user_id bigint NOT NULL REFERENCES users,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX user_subjects_user ON user_subjects (user_id);
