-- Mails that are still to be made of a template: while there is one, its versions stay.
CREATE INDEX emails_of_template ON emails (owner_id, template_name) WHERE template_data IS NOT NULL;
CREATE INDEX templates_deleted ON templates (deleted_at) WHERE deleted_at IS NOT NULL;
