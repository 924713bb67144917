"""For how long an owner's mails are kept: read and changed here, applied by email."""
