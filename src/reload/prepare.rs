//! Creates the metric series of a configuration: all exist at zero from the start, so that a rate never misses its
//! first step; those of removed connectors, domains and directories are deleted.
//!
//! `run` calls [`Metrics::prepare`] at start and after every reload.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};

use crate::config::accepted_domain::pattern;
use crate::config::{Auth, Config, DirectoryConfig, DirectoryKind, Protocol};
use crate::lookup::Kind;
use crate::metrics::domains::{IN_ADVANCE, MORE, OTHER};
use crate::metrics::{LOOKUPS, Metrics, REPORTS_NOT_SENT, SESSIONS_REFUSED, SESSIONS_SENT_AWAY, TOLD_AS_SUMS};
use crate::routing::accepted_domain::AcceptedDomains;

/// `authentications_total{result}`.
const AUTHENTICATIONS: [&str; 5] = ["accepted", "rejected", "repeated", "limited", "unavailable"];
/// `recipients_total{verdict}`.
const VERDICTS: [&str; 5] = ["resolved", "relayed", "redirected", "refused", "deferred"];
/// `deliveries_total{result}`.
const DELIVERIES: [&str; 3] = ["delivered", "deferred", "failed"];
/// `queue_messages{state}`.
const STATES: [&str; 2] = ["waiting", "held"];
/// `back_pressure{reason}`.
const BACK_PRESSURE: [&str; 4] = ["disk", "memory", "inodes", "messages"];
/// `loops_total{rule}`.
const LOOPS: [&str; 7] = ["resolves-first", "in-flight", "stamp", "relay-memory", "received", "passes", "greeting"];
/// `stamps_ignored_total{reason}`.
const STAMPS: [&str; 4] = ["mac", "identity", "form", "installation"];
/// `dsn_total{action}`.
const REPORTS: [&str; 4] = ["failed", "delayed", "relayed", "delivered"];
/// `config_reloads_total{result}`.
const RELOADS: [&str; 4] = ["applied", "unchanged", "refused", "held"];

impl Metrics {
    /// Creates every series of this configuration, and deletes those that it no longer has. Other values are unchanged.
    pub fn prepare(&self, config: &Config) {
        self.prepare_fixed();
        self.prepare_doors(config);
        self.prepare_ways(config);
        self.prepare_directories(config);
        let doors = config.receive_connectors.iter().map(|connector| &*connector.name);
        let ways = config.send_connectors.iter().map(|connector| &*connector.name);
        keep(&self.path_mtu_black_holes, &ones(&doors.chain(ways).collect::<Vec<_>>()));
        keep(&self.config_info, &[vec![&config.hash]]);
        self.config_info.with_label_values(&[&config.hash]).set(1);
    }

    /// Series that do not depend on the configuration.
    fn prepare_fixed(&self) {
        touch(&self.loops, &ones(&LOOPS));
        touch(&self.stamps_ignored, &ones(&STAMPS));
        touch(&self.dsn, &ones(&REPORTS));
        touch(&self.config_reloads, &ones(&RELOADS));
        touch(&self.acceptance_duration, &ones(&["cut-through", "queue"]));
        touch(&self.sessions_refused, &ones(&SESSIONS_REFUSED));
        touch(&self.told_as_sums, &ones(&TOLD_AS_SUMS));
        touch(&self.trace_lost, &[vec![]]);
        touch(&self.clock_jumps, &[vec![]]);
        touch(&self.cluster_takeovers, &[vec![]]);
        touch(&self.reports_not_sent, &ones(&REPORTS_NOT_SENT));
        touch(&self.dead_letters_removed, &ones(&["age", "number"]));
        for gauge in [&self.reports_waiting, &self.dead_letters_leaving] {
            touch(gauge, &[vec![]]);
        }
        touch(&self.sessions_sent_away, &ones(&SESSIONS_SENT_AWAY));
        let spool = [&self.dead_letters, &self.spool_free, &self.spool_free_inodes];
        let memory = [&self.memory_anonymous, &self.memory_limit, &self.directory_refresh];
        let others = [&self.config_last_reload, &self.cluster_without_standby];
        for gauge in spool.into_iter().chain(memory).chain(others).chain(self.cluster.all()) {
            touch(gauge, &[vec![]]);
        }
        touch(&self.back_pressure, &pairs(&BACK_PRESSURE, &["strangers", "everybody"]));
        touch(&self.spool_sync_duration, &[vec![]]);
    }

    fn prepare_doors(&self, config: &Config) {
        let names: Vec<&str> = config.receive_connectors.iter().map(|connector| &*connector.name).collect();
        keep(&self.connections, &ones(&names));
        keep(&self.connections_total, &ones(&names));
        keep(&self.unknown_delayed, &ones(&names));
        keep(&self.messages_received, &ones(&names));
        keep(&self.received_bytes, &ones(&names));
        let with_certificate = config.receive_connectors.iter().filter(|c| c.tls.certificate.is_some());
        let with_certificate: Vec<&str> = with_certificate.map(|connector| &*connector.name).collect();
        keep(&self.certificate_expiry, &ones(&with_certificate));
        let with_auth = config.receive_connectors.iter().filter(|connector| connector.auth != Auth::None);
        let with_auth: Vec<&str> = with_auth.map(|connector| &*connector.name).collect();
        keep(&self.authentications, &pairs(&with_auth, &AUTHENTICATIONS));
        self.prepare_domains(&config.routing.accepted);
    }

    fn prepare_domains(&self, accepted: &AcceptedDomains) {
        let is_accepted = |label: &str| pattern(label).is_ok_and(|pattern| accepted.has(&pattern));
        self.counted_domains.prepare(accepted.count(), is_accepted);
        if accepted.count() > IN_ADVANCE {
            let goes = |domain: &str| ![OTHER, MORE].contains(&domain) && !is_accepted(domain);
            for values in known(&self.recipients).into_iter().filter(|values| goes(&values[0])) {
                let _ = self.recipients.remove_label_values(&values.iter().map(String::as_str).collect::<Vec<_>>());
            }
            touch(&self.recipients, &pairs(&[OTHER, MORE], &VERDICTS));
            return;
        }
        let domains: Vec<String> = accepted.iter().map(|domain| domain.pattern.to_string()).collect();
        let domains: Vec<&str> = domains.iter().map(String::as_str).chain([OTHER]).collect();
        keep(&self.recipients, &pairs(&domains, &VERDICTS));
    }

    fn prepare_ways(&self, config: &Config) {
        let names: Vec<&str> = config.send_connectors.iter().map(|connector| &*connector.name).collect();
        keep(&self.deliveries, &pairs(&names, &DELIVERIES));
        keep(&self.delivery_duration, &ones(&names));
        keep(&self.relayed_mail_refused, &ones(&names));
        keep(&self.queue_messages, &pairs(&names, &STATES));
        keep(&self.queue_oldest, &ones(&names));
        let hosts = config.send_connectors.iter().flat_map(|connector| match &connector.protocol {
            Protocol::Smtp(smtp) => smtp.smart_hosts.iter().map(|host| (&*connector.name, host.to_string())).collect(),
            Protocol::Maildir(_) => Vec::new(),
        });
        let hosts: Vec<(&str, String)> = hosts.collect();
        // A next hop that has not been tried yet is not down: an alert at every start would teach operators to ignore
        // it.
        let hosts: Vec<Vec<&str>> = hosts.iter().map(|(connector, host)| vec![*connector, host.as_str()]).collect();
        for added in keep(&self.next_hop_up, &hosts) {
            self.next_hop_up.with_label_values(&added).set(1);
        }
        keep(&self.next_hop_connections_allowed, &hosts);
        keep(&self.next_hop_connections_max, &hosts);
        for host in &hosts {
            let allowed = self.next_hop_connections_allowed.with_label_values(host);
            let max = self.next_hop_connections_max.with_label_values(host);
            let limit = config.send_connector(host[0]).map_or(0, |connector| connector.max_connections);
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            // A host that accepts fewer keeps its number; a new one has none, and no limit, yet.
            if allowed.get() == max.get() || allowed.get() > limit {
                allowed.set(limit);
            }
            max.set(limit);
        }
    }

    /// Sets how many connections a smart host of a send connector is allowed now, by its configured name. Hosts found
    /// by MX have no series, since there may be any number.
    pub fn show_allowed(&self, host: [&str; 2], allowed: usize) {
        if exists(&self.next_hop_connections_max, &host) {
            let max = self.next_hop_connections_max.with_label_values(&host).get();
            let allowed = i64::try_from(allowed).unwrap_or(i64::MAX).min(max);
            self.next_hop_connections_allowed.with_label_values(&host).set(allowed);
        }
    }

    fn prepare_directories(&self, config: &Config) {
        let names: Vec<&str> = config.directories.iter().map(|directory| &*directory.name).collect();
        keep(&self.directory_lookups, &pairs(&names, &LOOKUPS));
        keep(&self.directory_lookup_duration, &ones(&names));
        keep(&self.directory_up, &ones(&names));
        keep(&self.directory_conflicts, &ones(&names));
        keep(&self.directory_accepts_everything, &ones(&names));
        let is_ldap = |directory: &&Arc<DirectoryConfig>| matches!(directory.kind, DirectoryKind::Ldap(_));
        let ldap: Vec<&str> = config.directories.iter().filter(is_ldap).map(|directory| &*directory.name).collect();
        keep(&self.directory_contradictions, &ones(&ldap));
        let servers = config.directories.iter().flat_map(|directory| match &directory.kind {
            DirectoryKind::Ldap(ldap) => ldap.urls.iter().map(|url| vec![&*directory.name, url.as_str()]).collect(),
            DirectoryKind::File(_) | DirectoryKind::CallAhead(_) => Vec::new(),
        });
        // As with next hops: a server that has not been tried yet is not down.
        for added in keep(&self.directory_server_up, &servers.collect::<Vec<_>>()) {
            self.directory_server_up.with_label_values(&added).set(1);
        }
        let is_snapshot = |directory: &&Arc<DirectoryConfig>| matches!(&directory.kind, DirectoryKind::Ldap(ldap) if ldap.is_snapshot());
        let snapshots = config.directories.iter().filter(is_snapshot);
        let snapshots: Vec<&str> = snapshots.map(|directory| &*directory.name).collect();
        keep(&self.directory_snapshot_age, &ones(&snapshots));
        keep(&self.directory_changes_held, &ones(&ldap));
        let files = config.directories.iter().filter(|directory| matches!(directory.kind, DirectoryKind::File(_)));
        let listed: Vec<&str> = files.map(|directory| &*directory.name).chain(snapshots).collect();
        keep(&self.directory_recipients, &pairs(&listed, &Kind::ALL.map(Kind::as_str)));
    }
}

fn ones<'a>(values: &[&'a str]) -> Vec<Vec<&'a str>> {
    values.iter().map(|value| vec![*value]).collect()
}

fn pairs<'a>(firsts: &[&'a str], seconds: &[&'a str]) -> Vec<Vec<&'a str>> {
    firsts.iter().flat_map(|first| seconds.iter().map(|second| vec![*first, *second])).collect()
}

/// Creates these series.
fn touch<T: MetricVecBuilder>(metric: &MetricVec<T>, series: &[Vec<&str>]) {
    for labels in series {
        let _ = metric.get_metric_with_label_values(labels);
    }
}

/// Creates these series and deletes all others. Returns the new ones.
fn keep<'a, T: MetricVecBuilder>(metric: &MetricVec<T>, series: &[Vec<&'a str>]) -> Vec<Vec<&'a str>> {
    let wanted: HashSet<&[&str]> = series.iter().map(Vec::as_slice).collect();
    let known = known(metric);
    let known: HashSet<Vec<&str>> = known.iter().map(|values| values.iter().map(String::as_str).collect()).collect();
    for gone in known.iter().filter(|values| !wanted.contains(values.as_slice())) {
        let _ = metric.remove_label_values(gone);
    }
    touch(metric, series);
    series.iter().filter(|values| !known.contains(*values)).cloned().collect()
}

fn known<T: MetricVecBuilder>(metric: &MetricVec<T>) -> Vec<Vec<String>> {
    let names = metric.desc().first().map(|desc| desc.variable_labels.clone()).unwrap_or_default();
    let families = metric.collect();
    let children = families.iter().flat_map(|family| family.get_metric());
    let values = children.map(|child| {
        let labels: HashMap<&str, &str> = child.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
        names.iter().filter_map(|name| labels.get(name.as_str()).map(|value| (*value).to_owned())).collect()
    });
    values.collect()
}

/// Whether this series exists. Asking the metric itself by labels would create it.
fn exists<T: MetricVecBuilder>(metric: &MetricVec<T>, values: &[&str]) -> bool {
    let names = metric.desc().first().map(|desc| desc.variable_labels.clone()).unwrap_or_default();
    metric.collect().iter().flat_map(|family| family.get_metric()).any(|child| {
        let has =
            |name: &str, value: &str| child.get_label().iter().any(|pair| pair.name() == name && pair.value() == value);
        names.iter().zip(values).all(|(name, value)| has(name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::accepted_domain::{AcceptedDomain, DomainType};

    #[test]
    fn series_appear_at_zero_stay_as_they_are_and_go() {
        let metrics = Metrics::new();
        assert_eq!(keep(&metrics.deliveries, &pairs(&["a", "b"], &["delivered", "failed"])).len(), 4);
        metrics.deliveries.with_label_values(&["b", "failed"]).inc_by(3);
        let new = keep(&metrics.deliveries, &pairs(&["b", "c"], &["delivered", "failed"]));
        assert_eq!(new, [["c", "delivered"], ["c", "failed"]]);
        let text = metrics.encode();
        assert!(!text.contains("send_connector=\"a\""), "{text}");
        assert!(text.contains("fingerpost_deliveries_total{result=\"failed\",send_connector=\"b\"} 3"), "{text}");
        assert!(text.contains("fingerpost_deliveries_total{result=\"delivered\",send_connector=\"c\"} 0"), "{text}");
    }

    #[test]
    fn domains_of_many_have_series_from_their_first_mail_on() {
        let accepted = |count: usize| {
            let domain = |at| AcceptedDomain {
                pattern: pattern(&format!("d{at}.example")).unwrap(),
                kind: DomainType::Authoritative,
                deliver_to: None,
            };
            AcceptedDomains::new((0..count).map(domain), HashMap::new())
        };
        let metrics = Metrics::new();
        let series = |count| {
            metrics.prepare_domains(&accepted(count));
            known(&metrics.recipients).len()
        };
        assert_eq!(series(3), 4 * VERDICTS.len());
        assert_eq!(series(IN_ADVANCE + 1), 5 * VERDICTS.len(), "these stay, and those of the rest are added");
        metrics.recipients.with_label_values(&["d900.example", "refused"]).inc();
        metrics.recipients.with_label_values(&["d2000.example", "refused"]).inc();
        assert_eq!(series(IN_ADVANCE + 1), 5 * VERDICTS.len() + 1, "who is not accepted goes");
        assert_eq!(series(IN_ADVANCE), (IN_ADVANCE + 1) * VERDICTS.len());
        assert_eq!(metrics.recipients.with_label_values(&["d900.example", "refused"]).get(), 1);
    }

    #[test]
    fn what_no_configuration_changes_is_there_from_the_start() {
        let metrics = Metrics::new();
        metrics.prepare_fixed();
        let text = metrics.encode();
        for series in [
            "fingerpost_loops_total{rule=\"stamp\"} 0",
            "fingerpost_dsn_total{action=\"failed\"} 0",
            "fingerpost_back_pressure{reason=\"memory\",turned_away=\"everybody\"} 0",
            "fingerpost_spool_sync_duration_seconds_count 0",
            "fingerpost_config_reloads_total{result=\"refused\"} 0",
            "fingerpost_cluster_without_standby 0",
            "fingerpost_cluster_takeovers_total 0",
            "fingerpost_cluster_unowned_messages 0",
        ] {
            assert!(text.contains(series), "{series} is missing in\n{text}");
        }
    }
}
