"""Files that mails attach by id: received over HTTP, stored in parts, removed when no mail needs them."""
