"""Mail: outcomes, freshness, the route to the relay."""

from __future__ import annotations

from grafana.panels import Dashboard, Query, panel, share, stack
from grafana.promql import highest, quantile, quantiles, rate, total

BOARD = Dashboard(
    uid="email",
    title="E-mail",
    description="Attempts by outcome, acceptance to delivery, what is due, and the route to the relay.",
    panels=(
        stack(
            "Attempts",
            "Attempts to deliver to a recipient, by outcome.",
            "ops",
            rate("tickwire_email_attempts_total", "outcome"),
        ),
        share(
            "Delivered",
            "Share of the attempts that the relay accepted.",
            Query(
                '(sum(rate(tickwire_email_attempts_total{outcome="delivered"}[$__rate_interval]))'
                " or vector(0)) / sum(rate(tickwire_email_attempts_total[$__rate_interval]))",
                "delivered",
            ),
        ),
        panel(
            "Accepted to delivered",
            "From the 202 (or the requested time) to the relay's 250.",
            "s",
            *quantiles("tickwire_email_accept_to_delivered_seconds"),
        ),
        panel(
            "Due recipients",
            "Recipients that wait although their next attempt is due.",
            "short",
            highest("tickwire_email_due_recipients", "service"),
        ),
        panel(
            "Longest wait",
            "For how long the first of these recipients has been due.",
            "s",
            highest("tickwire_email_oldest_due_seconds", "stream"),
        ),
        panel(
            "Domains at their rate",
            "Domains that are sent no mail now, because EMAIL_DOMAIN_LIMITS allows no more in this period.",
            "short",
            highest("tickwire_email_limited_domains", "service"),
        ),
        panel(
            "Held recipients",
            "Recipients held until somebody decides whether to send again.",
            "short",
            highest("tickwire_email_held_recipients", "service"),
        ),
        stack(
            "Removed",
            "Mails whose attachments, content or record were removed after their retention; ended "
            "suppressions, and failures of addresses that no longer count.",
            "ops",
            rate("tickwire_email_removed_total", "kind"),
        ),
        panel(
            "Removal behind",
            "How long the content that is removed next has been past its retention.",
            "s",
            highest("tickwire_email_removal_late_seconds", "service"),
        ),
        stack(
            "Templates",
            "Templates checked or rendered, by outcome; a failure is caused by the template itself.",
            "ops",
            rate("tickwire_email_templates_total", "outcome"),
        ),
        stack(
            "Written",
            "Mails built: light ones in the service, heavy ones in processes; interrupted ones wait.",
            "ops",
            rate("tickwire_email_written_total", "kind"),
        ),
        stack(
            "Uploads",
            "Files uploaded for mails, by outcome.",
            "ops",
            rate("tickwire_email_uploads_total", "outcome"),
        ),
        stack(
            "Uploads removed",
            "Uploads removed after they expired; unused ones are files that no mail has attached.",
            "ops",
            rate("tickwire_email_uploads_removed_total", "kind"),
        ),
        panel(
            "Uploads stored",
            "Bytes of all uploads; at EMAIL_UPLOADS_TOTAL_BYTES (most) no more are accepted.",
            "bytes",
            highest("tickwire_email_uploads_bytes", "service"),
            Query("max(tickwire_email_uploads_most_bytes)", "most"),
        ),
        stack(
            "Attachments that wait for email",
            "Attachments that email did not take before their mails were accepted: kept, sent, or failed.",
            "ops",
            rate("tickwire_parcels_total", "outcome"),
        ),
        panel(
            "Mails that wait for email with their attachments",
            "Their bytes at the gateway; at GATEWAY_PARCELS_TOTAL_BYTES (most) no more are accepted.",
            "bytes",
            Query("max(tickwire_parcels_bytes)", "bytes"),
            Query("max(tickwire_parcels_most_bytes)", "most"),
        ),
        panel(
            "Attachments that wait for email: oldest",
            "Age of the oldest accepted mail whose attachments the gateway could not send to email yet.",
            "s",
            Query("max(tickwire_parcels_oldest_seconds)", "oldest"),
        ),
        stack(
            "Sender domains",
            "Domains by state; losing: verified, but a DNS record has disappeared.",
            "short",
            highest("tickwire_email_domains", "state"),
        ),
        stack(
            "Looks at DNS records",
            "Checks of the records of sender domains: all found, some missing, or no answer from DNS.",
            "ops",
            rate("tickwire_email_domain_checks_total", "outcome"),
        ),
        panel(
            "Looks behind",
            "How long the next check of a domain's records has been overdue.",
            "s",
            highest("tickwire_email_domain_check_late_seconds", "service"),
        ),
        stack(
            "Signed",
            "Mails built for the relay, with and without a DKIM signature.",
            "ops",
            rate("tickwire_email_signed_total", "outcome"),
        ),
        stack(
            "Senders refused",
            "Mails whose owner may not send from their domain: refused at the gateway, or before sending.",
            "ops",
            rate("tickwire_email_senders_refused_total", "source"),
        ),
        stack(
            "Bounces",
            "Bounces, by kind.",
            "ops",
            rate("tickwire_email_bounces_total", "kind"),
        ),
        panel(
            "Bounces by domain",
            "Share of the accepted mails that bounced.",
            "percentunit",
            Query(
                "sum by (domain) (increase(tickwire_email_domain_bounces_total[$__rate_interval]))"
                " / sum by (domain) (increase(tickwire_email_domain_deliveries_total[$__rate_interval]))",
                "{{domain}}",
            ),
        ),
        stack(
            "Suppressions",
            "Addresses suppressed (bounce, reply, manual, import), not suppressed because their owner has "
            "reached the limit (no-room), and no longer suppressed (success, lifted).",
            "ops",
            rate("tickwire_email_suppressions_total", "kind"),
        ),
        panel(
            "Route paused",
            "1 while deliveries to the relay are paused, by reason.",
            "short",
            highest("tickwire_email_route_paused", "instance", "reason"),
        ),
        panel(
            "Owners paused",
            "Owners whose mails wait: the relay refuses their sender (policy) or mail after mail (refusals), "
            "or accepts no more from them for now (limited).",
            "short",
            highest("tickwire_email_paused_owners", "instance", "reason"),
        ),
        stack(
            "Pauses of owners",
            "Pauses of an owner's mails because the relay refuses or limits their sender, or refuses mail "
            "after mail of theirs.",
            "ops",
            rate("tickwire_email_owner_pauses_total", "reason"),
        ),
        panel(
            "Relays passed over",
            "Relays that cannot be used and are skipped for the next one; empty if there is only one.",
            "short",
            highest("tickwire_email_relays_away", "instance"),
        ),
        panel(
            "SMTP connections",
            "Open connections to the relay.",
            "short",
            total("tickwire_smtp_connections", "instance"),
        ),
        panel(
            "Age when taken",
            "How long commands wait, by queue, 99th percentile; masses of mails wait in `email.bulk`, and "
            "what an owner has too much of in `email.excess`.",
            "s",
            quantile(0.99, "tickwire_message_age_seconds", "queue", where='service="email"'),
        ),
        panel(
            "Time to store",
            "Time to store a group of mails.",
            "s",
            *quantiles("tickwire_message_handle_seconds", where='queue=~"email.*"'),
        ),
        panel(
            "Messages settled",
            "Commands to send, by outcome.",
            "ops",
            rate("tickwire_messages_consumed_total", "outcome", where='queue=~"email.*"'),
        ),
        panel(
            "Waiting in the queues",
            "Commands ready in the queues.",
            "short",
            highest("tickwire_queue_ready_messages", "queue", where='queue=~"email[.](send|bulk)"'),
        ),
        panel(
            "Time to answer",
            "Requests for a mail's state, 99th percentile.",
            "s",
            quantile(0.99, "tickwire_rpc_server_seconds", "type", where='service="email"'),
        ),
    ),
)
