//! `fingerpost route`: asks the running server; if it does not answer, decides from the file and says so.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use serde::Serialize;

use super::check::next_hops::way_out;
use super::client::{Client, NoAnswer, escaped};
use super::{Format, Outcome, address_of, output};
use crate::admin::explain::{Explained, explain};
use crate::config::Config;
use crate::config::check::{load, render};
use crate::directory::Needs;
use crate::directory::call_ahead::prober::Prober;
use crate::metrics::Metrics;
use crate::resolve::Resolver;
use crate::smtp::address::Address;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum AnsweredBy {
    Server,
    File,
}

#[derive(Serialize)]
struct Routed {
    answered_by: AnsweredBy,
    addresses: Vec<Explained>,
}

/// Prints for each address where its mail would go, and why. [`Outcome::No`]: at least one would be refused or
/// deferred.
pub(super) async fn route(
    config: &Path,
    addresses: &[String],
    from: Option<IpAddr>,
    format: Format,
) -> anyhow::Result<Outcome> {
    let addresses = addresses.iter().map(|text| address_of(text)).collect::<anyhow::Result<Vec<_>>>()?;
    let routed = match ask_server(config, &addresses, from).await {
        Ok(explained) => Routed { answered_by: AnsweredBy::Server, addresses: explained },
        Err(NoAnswer::Refused { status: 422 | 400, text }) => bail!(text),
        Err(why) => {
            let explained = ask_file(config, &addresses, from).await?;
            if format == Format::Text {
                output::text(&format!("from the file {}, because {why}\n\n", config.display()));
            }
            Routed { answered_by: AnsweredBy::File, addresses: explained }
        }
    };
    match format {
        Format::Json => output::json(&routed)?,
        Format::Text => {
            let texts: Vec<String> = routed.addresses.iter().map(Explained::text).collect();
            output::text(&texts.join("\n"));
        }
    }
    Ok(if routed.addresses.iter().all(Explained::is_accepted) { Outcome::Done } else { Outcome::No })
}

async fn ask_server(config: &Path, addresses: &[Address], from: Option<IpAddr>) -> Result<Vec<Explained>, NoAnswer> {
    let client = Client::new(config)?;
    let mut all = Vec::new();
    for address in addresses {
        let from = from.map(|from| format!("&from={from}")).unwrap_or_default();
        all.push(client.ask("GET", &format!("/api/route?address={}{from}", escaped(address.as_str()))).await?);
    }
    Ok(all)
}

async fn ask_file(file: &Path, addresses: &[Address], from: Option<IpAddr>) -> anyhow::Result<Vec<Explained>> {
    let config = load(file, &HashMap::new()).map_err(|problems| anyhow!("{}", render(&problems)))?;
    let resolver = resolver(&config)?;
    let mut all = Vec::new();
    for address in addresses {
        all.push(explain(&config, &resolver, address, from).await.map_err(anyhow::Error::msg)?);
    }
    Ok(all)
}

/// Decides by the configuration, without a server.
pub(super) fn resolver(config: &Config) -> anyhow::Result<Resolver> {
    let (prober, metrics): (Arc<dyn Prober>, _) = (Arc::new(way_out(config)), Metrics::new());
    let needs = Needs { prober: &prober, folder: None, mail: None, metrics: &metrics };
    let directories = crate::directory::build(&config.directories, None, &needs);
    let directories = directories.map_err(|problems| anyhow!("{}", problems.join("\n")))?;
    Ok(Resolver::new(config.routing.clone(), Arc::new(directories)))
}
