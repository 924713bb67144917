"""The development mailbox: accepts mail by SMTP, delivers none of it, and shows it on a web page.

It answers the part of Mailpit's REST API that tests and the demo use, so both run against either.
"""
