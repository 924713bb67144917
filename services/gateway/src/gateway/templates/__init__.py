"""Templates of mails at the gateway: forwarded to email, which stores and renders them."""
