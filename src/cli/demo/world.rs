//! The demo's environment: a folder, ports, and three nodes: Fingerpost, and two organisations' mail servers, which are
//! nodes of the same program that deliver to Maildirs.
//!
//! Their configurations are files in `conf/`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use crate::run::Node;

/// The listener of Fingerpost.
const FINGERPOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The listener of the primary organisation's mail server.
const PRIMARY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// The listener of the secondary organisation's mail server, which also sends from this address.
const SECONDARY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

pub(super) struct World {
    folder: PathBuf,
    pub(super) addresses: Addresses,
    pub(super) fingerpost: Node,
    primary: Node,
    secondary: Node,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) fingerpost: SocketAddr,
    pub(super) primary: SocketAddr,
    pub(super) secondary: SocketAddr,
    pub(super) metrics: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl World {
    /// Creates the folder, writes the configurations and starts the three nodes. If one fails, everything is removed.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("fingerpost-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let world = Self::start_in(folder.clone()).await;
        if world.is_err() {
            remove(&folder);
        }
        world
    }

    async fn start_in(folder: PathBuf) -> anyhow::Result<Self> {
        let ports = Ports::choose()?;
        write_files(&folder, &ports)?;
        let primary = start(&folder, "demo-primary.toml").await?;
        let secondary = start(&folder, "demo-secondary.toml").await?;
        let fingerpost = start(&folder, "demo.toml").await?;
        Ok(Self { folder, addresses: ports.addresses(), fingerpost, primary, secondary })
    }

    pub(super) fn configuration(&self) -> PathBuf {
        self.folder.join("demo.toml")
    }

    /// The folders of the organisations' Maildirs.
    pub(super) fn maildirs(&self) -> [(&'static str, PathBuf); 2] {
        ["primary", "secondary"].map(|organisation| (organisation, self.folder.join(organisation).join("mail")))
    }

    /// Whether no node has anything left to deliver.
    pub(super) fn is_quiet(&self) -> bool {
        [&self.fingerpost, &self.primary, &self.secondary].iter().all(|node| node.delivery().total() == 0)
    }

    /// Stops the nodes and removes the folder.
    pub(super) async fn end(self) {
        self.fingerpost.stop().await;
        self.secondary.stop().await;
        self.primary.stop().await;
        remove(&self.folder);
    }
}

fn remove(folder: &Path) {
    let _ = std::fs::remove_dir_all(folder); // what is left in a temporary folder harms nobody
}

async fn start(folder: &Path, file: &str) -> anyhow::Result<Node> {
    Node::start(&folder.join(file)).await.map_err(|error| anyhow!("the demo's {file} does not start: {error}"))
}

/// The files in `conf/`.
const FILES: [(&str, &str); 5] = [
    ("demo.toml", include_str!("../../../conf/demo.toml")),
    ("demo-primary.toml", include_str!("../../../conf/demo-primary.toml")),
    ("demo-secondary.toml", include_str!("../../../conf/demo-secondary.toml")),
    ("demo-staff.csv", include_str!("../../../conf/demo-staff.csv")),
    ("demo-secondary.csv", include_str!("../../../conf/demo-secondary.csv")),
];

/// Writes them with ports that are free instead of the usual ones.
fn write_files(folder: &Path, ports: &Ports) -> anyhow::Result<()> {
    for (name, text) in FILES {
        let path = folder.join(name);
        std::fs::write(&path, ports.put_into(text)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The listeners in `conf/`.
const USUAL: [(IpAddr, u16); 9] = [
    (FINGERPOST, 2525),
    (PRIMARY, 2526),
    (SECONDARY, 2527),
    (FINGERPOST, 8025),
    (PRIMARY, 8025),
    (SECONDARY, 8025),
    (FINGERPOST, 9925),
    (PRIMARY, 9925),
    (SECONDARY, 9925),
];

/// The listeners that are used, parallel to [`USUAL`].
struct Ports([SocketAddr; 9]);

impl Ports {
    /// The usual ones if they are free, else any others.
    fn choose() -> anyhow::Result<Self> {
        let mut chosen = USUAL.map(SocketAddr::from);
        // All are kept open until the end, so that none is chosen twice.
        let mut held = Vec::new();
        for address in &mut chosen {
            let listener = TcpListener::bind(*address).or_else(|_| TcpListener::bind((address.ip(), 0)));
            let listener =
                listener.with_context(|| format!("cannot listen on {}, which this demo needs", address.ip()))?;
            *address = listener.local_addr()?;
            held.push(listener);
        }
        Ok(Self(chosen))
    }

    fn addresses(&self) -> Addresses {
        let [fingerpost, primary, secondary, admin, _, _, metrics, _, _] = self.0;
        Addresses { fingerpost, primary, secondary, metrics, admin }
    }

    /// Addresses in `conf/` are written as `IP:PORT` and, for smart hosts, `[IP]:PORT`.
    fn put_into(&self, text: &str) -> String {
        USUAL.iter().zip(&self.0).fold(text.to_owned(), |text, ((ip, usual), chosen)| {
            let port = chosen.port();
            text.replace(&format!("{ip}:{usual}\""), &format!("{ip}:{port}\""))
                .replace(&format!("[{ip}]:{usual}\""), &format!("[{ip}]:{port}\""))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_port_is_replaced() {
        let ports = Ports(USUAL.map(|(ip, _)| SocketAddr::new(ip, 7)));
        let texts: String = FILES.iter().map(|(_, text)| ports.put_into(text)).collect();
        for (_, usual) in USUAL {
            assert!(!texts.contains(&usual.to_string()), "{usual} is left");
        }
    }
}
