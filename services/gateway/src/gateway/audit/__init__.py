"""The audit trail: who changed what, with which key."""
