-- Keys with what their ancestors leave of their life, and the state that follows from it and from their users.
CREATE VIEW key_states AS
SELECT k.id, k.user_id, k.name, k.scopes, k.parent_id, k.created_at, k.rotated_at, k.digest, k.previous_digest,
    k.previous_until, k.revoked_at, k.last_used_at, life.ends_at AS expires_at, life.ancestors,
    u.name AS user_name, u.role,
    CASE WHEN life.is_revoked THEN 'revoked' WHEN life.ends_at <= now() THEN 'expired'
        WHEN u.status = 'disabled' THEN 'disabled' ELSE 'active' END AS status
FROM api_keys AS k JOIN users AS u ON u.id = k.user_id CROSS JOIN LATERAL key_life(k.id) AS life;
