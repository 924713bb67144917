"""The retention of mails: how long each owner keeps them, and the removal of what is older."""
