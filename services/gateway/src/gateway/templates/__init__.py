"""Templates of mails at the gateway: passed on to email, which keeps and renders them."""
