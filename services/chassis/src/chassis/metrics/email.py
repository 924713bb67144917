"""Metrics of the mail service: deliveries, bounces, domains, uploads, the route."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from chassis.metrics.conventions import SLOW

EMAIL_ATTEMPTS = Counter("tickwire_email_attempts", "Attempts to deliver to a recipient.", ("outcome",))
EMAIL_DELIVERY_SECONDS = Histogram(
    "tickwire_email_accept_to_delivered_seconds", "Time from acceptance to delivery.", buckets=SLOW
)
EMAIL_DUE = Gauge("tickwire_email_due_recipients", "Recipients whose next attempt is due.")
EMAIL_OLDEST_DUE = Gauge(
    "tickwire_email_oldest_due_seconds",
    "For how long the first of the due recipients has been due, by stream; not for domains at their rate.",
    ("stream",),
)
EMAIL_LIMITED_DOMAINS = Gauge(
    "tickwire_email_limited_domains",
    "Destination domains whose rate (EMAIL_DOMAIN_LIMITS) is used up at the moment.",
)
EMAIL_HELD = Gauge(
    "tickwire_email_held_recipients", "Recipients held until an operator decides whether to send again."
)
EMAIL_REMOVED = Counter(
    "tickwire_email_removed",
    "Rows removed after their retention: parts and records of mails, suppressions, failures, versions.",
    ("kind",),
)
EMAIL_BOUNCES = Counter(
    "tickwire_email_bounces",
    "Bounces, by what they say; unsigned, late: the return path names no known mail.",
    ("kind",),
)
EMAIL_DOMAIN_DELIVERIES = Counter(
    "tickwire_email_domain_deliveries", "Mails that the relay accepted, by busy destination.", ("domain",)
)
EMAIL_DOMAIN_BOUNCES = Counter(
    "tickwire_email_domain_bounces",
    "Bounces after the relay had accepted the mail, by busy destination domain.",
    ("domain",),
)
EMAIL_SUPPRESSIONS = Counter(
    "tickwire_email_suppressions",
    "Suppressions added (bounce, reply, manual, import), not added for want of room (no-room), and ended "
    "(success, lifted).",
    ("kind",),
)
EMAIL_REMOVAL_LATE = Gauge(
    "tickwire_email_removal_late_seconds",
    "For how long the next content to be removed has been past its retention.",
)
EMAIL_TEMPLATES = Counter(
    "tickwire_email_templates",
    "Templates that were checked or rendered, by what became of them: rendered, the code of the failure, or "
    "interrupted, because their process was ended from outside or got no CPU time.",
    ("outcome",),
)
EMAIL_WRITTEN = Counter(
    "tickwire_email_written",
    "Mails that were written, by where: light ones in the service (light), others in a process (heavy); and "
    "work that was put off, because its process did not finish it (interrupted).",
    ("kind",),
)
PARCELS = Counter(
    "tickwire_parcels",
    "Attachments that email did not take ahead of their mails: kept here, sent, tried in vain (failed), or "
    "refused for good.",
    ("outcome",),
)
PARCELS_MOST_BYTES = Gauge(
    "tickwire_parcels_most_bytes", "Bytes that mails may take whose attachments wait at the gateway."
)
PARCELS_BYTES = Gauge(
    "tickwire_parcels_bytes", "Bytes that mails take whose attachments wait at the gateway."
)
PARCELS_OLDEST = Gauge(
    "tickwire_parcels_oldest_seconds", "Age of the oldest mail whose attachments wait at the gateway."
)
EMAIL_UPLOADS = Counter(
    "tickwire_email_uploads", "Uploads for mails, by what became of them: stored or broken-off.", ("outcome",)
)
EMAIL_UPLOADS_MOST_BYTES = Gauge(
    "tickwire_email_uploads_most_bytes", "Bytes that the uploads of all owners may take."
)
EMAIL_UPLOADS_BYTES = Gauge("tickwire_email_uploads_bytes", "Bytes that the uploads of all owners take.")
EMAIL_UPLOADS_REMOVED = Counter(
    "tickwire_email_uploads_removed",
    "Uploads removed because their time was over, by what they were: used, unused or incomplete.",
    ("kind",),
)
EMAIL_DOMAINS = Gauge(
    "tickwire_email_domains",
    "Sender domains by state; losing: verified, and a record is gone that was there.",
    ("state",),
)
EMAIL_DOMAIN_CHECKS = Counter(
    "tickwire_email_domain_checks", "Checks of the DNS records of a sender domain, by outcome.", ("outcome",)
)
EMAIL_DOMAIN_CHECK_LATE = Gauge(
    "tickwire_email_domain_check_late_seconds",
    "For how long the next check of the records of a sender domain has been due.",
)
EMAIL_SENDERS_REFUSED = Counter(
    "tickwire_email_senders_refused",
    "Mails refused because their owner may not send from that domain, by who refused them.",
    ("source",),
)
EMAIL_SIGNED = Counter(
    "tickwire_email_signed", "Mails written for the relay, with or without a DKIM signature.", ("outcome",)
)
EMAIL_ROUTE_PAUSED = Gauge(
    "tickwire_email_route_paused", "1 while deliveries to the relay are paused, by reason.", ("reason",)
)
EMAIL_PAUSED_OWNERS = Gauge(
    "tickwire_email_paused_owners", "Owners whose mails the relay refuses or limits, by reason.", ("reason",)
)
EMAIL_OWNER_PAUSES = Counter(
    "tickwire_email_owner_pauses", "Pauses of owners the relay refuses or limits, by reason.", ("reason",)
)
EMAIL_RELAYS_AWAY = Gauge(
    "tickwire_email_relays_away",
    "Relays that are passed over for the next one, as they turned us away; none where there is only one.",
)
SMTP_CONNECTIONS = Gauge("tickwire_smtp_connections", "Open connections to the relay.")
