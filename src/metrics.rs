//! Every metric of DESIGN section 10 that applies, in one place. `admin` serves them.
//!
//! Labels are connectors, domains and reasons, never an address. [`Metrics::prepare`] makes every series
//! of a configuration exist at zero; [`encode`](Metrics::encode) writes them as Prometheus reads them.

use std::sync::OnceLock;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

pub mod cluster;
pub(crate) mod domains;

pub use domains::CountedDomains;

/// `reports_not_sent_total{reason}`.
pub const REPORTS_NOT_SENT: [&str; 5] =
    ["address-literal", "no-such-domain", "null-mx", "no-mail-server", "private-address"];
/// `directory_lookups_total{result}`.
pub const LOOKUPS: [&str; 6] = ["found", "not-found", "ambiguous", "accepts-everything", "unavailable", "cached"];

/// `sessions_refused_total{reason}`.
pub const SESSIONS_REFUSED: [&str; 6] =
    ["descriptors", "max-connections", "max-connections-per-ip", "no-connector", "proxy-header", "unknown-recipients"];
/// `sessions_sent_away_total{reason}`.
pub const SESSIONS_SENT_AWAY: [&str; 3] = ["idle", "place-wanted", "unknown-recipients"];

/// `told_as_sums_total{what}`.
pub const TOLD_AS_SUMS: [&str; 12] = [
    "refused-recipients",
    "out-of-reach",
    "loops",
    "certificates",
    "not-kept",
    "harvesters",
    "turned-away",
    "sent-away",
    "broken-sessions",
    "failed-authentications",
    "guessers",
    "deferred",
];

/// All metrics. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    /// What `/metrics` gathers.
    pub registry: Registry,
    /// `connections{receive_connector}`.
    pub connections: IntGaugeVec,
    /// `connections_total{receive_connector}`.
    pub connections_total: IntCounterVec,
    /// `sessions_refused_total{reason}`.
    pub sessions_refused: IntCounterVec,
    /// `sessions_sent_away_total{reason}`: where connections are short.
    pub sessions_sent_away: IntCounterVec,
    /// `authentications_total{receive_connector,result}`: `accepted`, `rejected`, `repeated` (refused without asking),
    /// `limited` (454 without asking), `unavailable`.
    pub authentications: IntCounterVec,
    /// `recipients_total{domain,verdict}`; domain: the accepted domain's pattern, `other`, or `more`.
    pub recipients: IntCounterVec,
    /// The domains with series of their own.
    pub counted_domains: CountedDomains,
    /// `messages_received_total{receive_connector}`.
    pub messages_received: IntCounterVec,
    /// `received_bytes_total{receive_connector}`.
    pub received_bytes: IntCounterVec,
    /// `deliveries_total{send_connector,result}`: result `delivered`, `deferred`, `failed`; counts recipients.
    pub deliveries: IntCounterVec,
    /// `delivery_duration_seconds{send_connector}`: one attempt, from the connection to the last reply.
    pub delivery_duration: HistogramVec,
    /// `acceptance_duration_seconds{delivery}`: from the end of data to our reply; delivery `cut-through` where nothing
    /// of the message had to be stored, else `queue`.
    pub acceptance_duration: HistogramVec,
    /// `next_hop_up{send_connector,smart_host}`.
    pub next_hop_up: IntGaugeVec,
    /// `relayed_mail_refused_total{send_connector}`: recipients refused because SPF, DKIM or DMARC fail for relayed
    /// mail.
    pub relayed_mail_refused: IntCounterVec,
    /// `next_hop_connections_allowed{send_connector,smart_host}`: `max_connections`, or fewer where the host refused one more.
    pub next_hop_connections_allowed: IntGaugeVec,
    /// `next_hop_connections_max{send_connector,smart_host}`: `max_connections`.
    pub next_hop_connections_max: IntGaugeVec,
    /// `queue_messages{send_connector,state}`: state `waiting`, `held`; counts branches, without reports that wait for
    /// their turn.
    pub queue_messages: IntGaugeVec,
    /// `queue_oldest_seconds{send_connector}`.
    pub queue_oldest: IntGaugeVec,
    /// `loops_total{rule}`: `resolves-first`, `in-flight`, `stamp`, `relay-memory`, `received`, `passes`, `greeting`.
    pub loops: IntCounterVec,
    /// `stamps_ignored_total{reason}`: `mac`, `identity`, `form`, `installation`.
    pub stamps_ignored: IntCounterVec,
    /// `dsn_total{action}`: `failed`, `delayed`, `relayed`, `delivered`.
    pub dsn: IntCounterVec,
    /// `reports_waiting`.
    pub reports_waiting: IntGaugeVec,
    /// `reports_not_sent_total{reason}`: `address-literal`, `no-such-domain`, `null-mx`, `no-mail-server`,
    /// `private-address`.
    pub reports_not_sent: IntCounterVec,
    /// `dead_letters`.
    pub dead_letters: IntGaugeVec,
    /// `dead_letters_leaving`.
    pub dead_letters_leaving: IntGaugeVec,
    /// `dead_letters_removed_total{reason}`: `age`, `number`.
    pub dead_letters_removed: IntCounterVec,
    /// `directory_lookups_total{directory,result}`: `found`, `not-found`, `ambiguous`, `accepts-everything`,
    /// `unavailable`, `cached`.
    pub directory_lookups: IntCounterVec,
    /// `directory_lookup_duration_seconds{directory}`.
    pub directory_lookup_duration: HistogramVec,
    /// `directory_recipients{directory,kind}` (file directories).
    pub directory_recipients: IntGaugeVec,
    /// `directory_up{directory}`.
    pub directory_up: IntGaugeVec,
    /// `directory_server_up{directory,url}`: whether an LDAP server answered its last request.
    pub directory_server_up: IntGaugeVec,
    /// `directory_conflicts{directory}`: addresses that an earlier directory also has, or that are ambiguous.
    pub directory_conflicts: IntGaugeVec,
    /// `directory_snapshot_age_seconds{directory}`: since its last confirmation; -1: it has not been read yet.
    pub directory_snapshot_age: IntGaugeVec,
    /// `directory_changes_held{directory}`: recipients whose route would change.
    pub directory_changes_held: IntGaugeVec,
    /// `directory_accepts_everything{directory}`: 1 for a mail server whose answers prove nothing.
    pub directory_accepts_everything: IntGaugeVec,
    /// `directory_contradictions{directory}`: entries that contradict themselves, or lack attributes that similar
    /// entries have.
    pub directory_contradictions: IntGaugeVec,
    /// `config_reloads_total{result}`: `applied`, `unchanged`, `refused`, `held`.
    pub config_reloads: IntCounterVec,
    /// `config_last_reload_timestamp_seconds` of the last one that was applied.
    pub config_last_reload: IntGaugeVec,
    /// `config_info{hash}`.
    pub config_info: IntGaugeVec,
    /// `certificate_expiry_timestamp_seconds{connector}`.
    pub certificate_expiry: IntGaugeVec,
    /// `spool_free_bytes`.
    pub spool_free: IntGaugeVec,
    /// `spool_sync_duration_seconds`.
    pub spool_sync_duration: HistogramVec,
    /// `spool_sync_failures_total`: any failure is a reason to check the disk.
    pub spool_sync_failures: IntCounterVec,
    /// `spool_damaged_contents_total`: messages whose content had a wrong checksum when it was sent or moved.
    pub spool_damaged_contents: IntCounterVec,
    /// `spool_unreadable_segments`: segments of which the disk cannot read a part that is needed.
    pub spool_unreadable_segments: IntGaugeVec,
    /// `spool_takes_nothing`: 1 while nothing can be made durable.
    pub spool_takes_nothing: IntGaugeVec,
    /// `cluster_without_standby`: 1 while mail is accepted that only one machine has.
    pub cluster_without_standby: IntGaugeVec,
    /// `cluster_takeovers_total`: nodes whose epoch this node ended because they were silent.
    pub cluster_takeovers: IntCounterVec,
    /// Of all nodes.
    pub cluster: cluster::ClusterMetrics,
    /// `path_mtu_black_holes_total{connector}`: connections that stalled with their first full segments, either way.
    pub path_mtu_black_holes: IntCounterVec,
    /// `told_as_sums_total{what}`: events caused by strangers or an outage that the log has in summaries only.
    pub told_as_sums: IntCounterVec,
    /// `unknown_recipients_delayed_total{receive_connector}`: refusals that were delayed because the client harvests
    /// addresses.
    pub unknown_delayed: IntCounterVec,
    /// `trace_events_lost_total`.
    pub trace_lost: IntCounterVec,
    /// `clock_jumps_total`.
    pub clock_jumps: IntCounterVec,
    /// `back_pressure{reason,turned_away}`: 1 while such mail is refused for that reason.
    pub back_pressure: IntGaugeVec,
    /// `spool_free_inodes`.
    pub spool_free_inodes: IntGaugeVec,
    /// `memory_anonymous_bytes`.
    pub memory_anonymous: IntGaugeVec,
    /// `memory_limit_bytes`.
    pub memory_limit: IntGaugeVec,
    /// `directory_refresh_bytes`.
    pub directory_refresh: IntGaugeVec,
    /// `log_lines_lost_total`: of the whole process ([`log_lines_lost`]).
    pub log_lines_lost: IntCounter,
}

impl Metrics {
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one entry a metric")]
    pub fn new() -> Self {
        let registry = Registry::new_custom(Some("fingerpost".into()), None).unwrap_or_default();
        let r = &registry;
        Self {
            connections: gauge(r, "connections", "Connections open now", &["receive_connector"]),
            connections_total: counter(r, "connections_total", "Connections accepted", &["receive_connector"]),
            sessions_refused: counter(r, "sessions_refused_total", "Connections turned away", &["reason"]),
            sessions_sent_away: counter(
                r,
                "sessions_sent_away_total",
                "Idle clients sent away where connections are short",
                &["reason"],
            ),
            authentications: counter(
                r,
                "authentications_total",
                "Clients that said who they are",
                &["receive_connector", "result"],
            ),
            recipients: counter(r, "recipients_total", "Recipients decided", &["domain", "verdict"]),
            counted_domains: CountedDomains::default(),
            messages_received: counter(r, "messages_received_total", "Messages accepted", &["receive_connector"]),
            received_bytes: counter(r, "received_bytes_total", "Bytes of accepted messages", &["receive_connector"]),
            deliveries: counter(r, "deliveries_total", "Recipients' deliveries", &["send_connector", "result"]),
            delivery_duration: histogram(r, "delivery_duration_seconds", "One delivery attempt", &["send_connector"]),
            acceptance_duration: histogram(
                r,
                "acceptance_duration_seconds",
                "From the final dot to our reply",
                &["delivery"],
            ),
            next_hop_up: gauge(r, "next_hop_up", "Whether the next hop answers", &["send_connector", "smart_host"]),
            relayed_mail_refused: counter(
                r,
                "relayed_mail_refused_total",
                "Recipients that a next hop refused because we relayed the mail (SPF, DKIM, DMARC)",
                &["send_connector"],
            ),
            next_hop_connections_allowed: gauge(
                r,
                "next_hop_connections_allowed",
                "Connections that the next hop takes at once, as far as it lets us know",
                &["send_connector", "smart_host"],
            ),
            next_hop_connections_max: gauge(
                r,
                "next_hop_connections_max",
                "Connections that the next hop is given at once if it takes them",
                &["send_connector", "smart_host"],
            ),
            queue_messages: gauge(r, "queue_messages", "Queued branches", &["send_connector", "state"]),
            queue_oldest: gauge(r, "queue_oldest_seconds", "Age of the oldest queued message", &["send_connector"]),
            loops: counter(r, "loops_total", "Loops seen", &["rule"]),
            stamps_ignored: counter(r, "stamps_ignored_total", "Stamps that proved nothing", &["reason"]),
            dsn: counter(r, "dsn_total", "Reports made", &["action"]),
            reports_waiting: gauge(r, "reports_waiting", "Queued reports that strangers' mail caused", &[]),
            reports_not_sent: counter(r, "reports_not_sent_total", "Reports that may or can go nowhere", &["reason"]),
            dead_letters: gauge(r, "dead_letters", "Reports that could not be delivered", &[]),
            dead_letters_leaving: gauge(r, "dead_letters_leaving", "Dead letters that will be removed soon", &[]),
            dead_letters_removed: counter(r, "dead_letters_removed_total", "Dead letters removed", &["reason"]),
            directory_lookups: counter(r, "directory_lookups_total", "Questions answered", &["directory", "result"]),
            directory_lookup_duration: histogram(
                r,
                "directory_lookup_duration_seconds",
                "One question to the directory itself",
                &["directory"],
            ),
            directory_recipients: gauge(r, "directory_recipients", "Recipients known", &["directory", "kind"]),
            directory_up: gauge(r, "directory_up", "Whether the directory answers", &["directory"]),
            directory_server_up: gauge(
                r,
                "directory_server_up",
                "Whether an LDAP server answered when it was last tried",
                &["directory", "url"],
            ),
            directory_conflicts: gauge(r, "directory_conflicts", "Addresses with two owners", &["directory"]),
            directory_snapshot_age: gauge(
                r,
                "directory_snapshot_age_seconds",
                "Since the snapshot was last known to be what the directory has; -1: nothing was read yet",
                &["directory"],
            ),
            directory_changes_held: gauge(
                r,
                "directory_changes_held",
                "Recipients whose mail would take another way if the changes that are held were accepted",
                &["directory"],
            ),
            directory_accepts_everything: gauge(r, "directory_accepts_everything", "Accepts all mail", &["directory"]),
            directory_contradictions: gauge(
                r,
                "directory_contradictions",
                "Entries that contradict themselves or lack what their like have",
                &["directory"],
            ),
            config_reloads: counter(r, "config_reloads_total", "Reloads", &["result"]),
            config_last_reload: gauge(
                r,
                "config_last_reload_timestamp_seconds",
                "When the configuration in force was loaded",
                &[],
            ),
            config_info: gauge(r, "config_info", "The configuration in force", &["hash"]),
            certificate_expiry: gauge(
                r,
                "certificate_expiry_timestamp_seconds",
                "When the certificate expires",
                &["connector"],
            ),
            spool_free: gauge(r, "spool_free_bytes", "Free space under the spool", &[]),
            spool_sync_duration: histogram(r, "spool_sync_duration_seconds", "One sync of the spool's log", &[]),
            spool_sync_failures: counter(r, "spool_sync_failures_total", "Syncs of the spool that failed", &[]),
            spool_damaged_contents: counter(r, "spool_damaged_contents_total", "Messages damaged on the disk", &[]),
            spool_unreadable_segments: gauge(r, "spool_unreadable_segments", "Segments that cannot be read", &[]),
            spool_takes_nothing: gauge(r, "spool_takes_nothing", "Whether nothing can be made durable", &[]),
            cluster_without_standby: gauge(r, "cluster_without_standby", "Whether only one machine has new mail", &[]),
            cluster_takeovers: counter(r, "cluster_takeovers_total", "Silent nodes whose mail was taken over", &[]),
            cluster: cluster::ClusterMetrics::new(r),
            path_mtu_black_holes: counter(
                r,
                "path_mtu_black_holes_total",
                "Connections that stalled as behind a path MTU black hole",
                &["connector"],
            ),
            told_as_sums: counter(r, "told_as_sums_total", "What log and trace have in sums only", &["what"]),
            unknown_delayed: counter(
                r,
                "unknown_recipients_delayed_total",
                "Refusals told later to clients that look for addresses",
                &["receive_connector"],
            ),
            trace_lost: counter(r, "trace_events_lost_total", "Trace events that were not written", &[]),
            clock_jumps: counter(r, "clock_jumps_total", "Jumps of the time of day by more than a minute", &[]),
            back_pressure: gauge(
                r,
                "back_pressure",
                "Whether mail is turned away, for want of what and whose",
                &["reason", "turned_away"],
            ),
            spool_free_inodes: gauge(
                r,
                "spool_free_inodes",
                "Free inodes under the spool; 0: they have no number",
                &[],
            ),
            memory_anonymous: gauge(r, "memory_anonymous_bytes", "Memory held that is in no file", &[]),
            memory_limit: gauge(r, "memory_limit_bytes", "Memory that there is for it", &[]),
            directory_refresh: gauge(
                r,
                "directory_refresh_bytes",
                "Estimate, made before, of the memory that reading directories anew takes",
                &[],
            ),
            log_lines_lost: register(r, Ok(log_lines_lost()), "log_lines_lost_total"),
            registry,
        }
    }

    /// All series in Prometheus' text format.
    #[must_use]
    pub fn encode(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Log lines that were lost because they could not be written, or not fast enough. A process has one log, which begins
/// before there are metrics, so the counter is global; every registry includes it.
#[must_use]
#[expect(clippy::expect_used, reason = "a constant name, checked by the test below")]
pub fn log_lines_lost() -> IntCounter {
    static LOST: OnceLock<IntCounter> = OnceLock::new();
    let help = "Log lines that found no room, or could not be written";
    LOST.get_or_init(|| IntCounter::new("log_lines_lost_total", help).expect("a name as Prometheus has them")).clone()
}

/// Registering fails only for a duplicate name, which a test below excludes.
fn counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let metric = IntCounterVec::new(Opts::new(name, help), labels);
    register(registry, metric, name)
}

fn gauge(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels);
    register(registry, metric, name)
}

fn histogram(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let buckets =
        vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
    let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels);
    register(registry, metric, name)
}

#[expect(clippy::expect_used, reason = "names and labels are constants of this file, checked by its test")]
fn register<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
    name: &str,
) -> M {
    let metric = metric.expect(name);
    registry.register(Box::new(metric.clone())).expect(name);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_used_once() {
        let _ = Metrics::new();
    }
}
