"""E-mails at the gateway: accept, report."""
