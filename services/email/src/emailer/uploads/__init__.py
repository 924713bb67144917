"""Files that mails attach by an id: taken over HTTP, kept in parts, removed when nobody needs them."""
