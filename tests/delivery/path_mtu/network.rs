//! Three network namespaces in a row: client, router, server. The router's far link carries packets of at most 600
//! bytes, and the ICMP message that would say so is dropped: a path MTU black hole. Or it is well, and the line is long.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The server's address, as the client sees it.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 1);

/// The namespaces; they are deleted with it.
pub(crate) struct Network {
    client: Namespace,
    server: Namespace,
    router: Namespace,
}

struct Namespace(String);

impl Network {
    /// Makes one; `tag` tells it from others of this process. The error: this machine does not allow it.
    pub(crate) fn lay(tag: char) -> Result<Self, String> {
        let network = Self::healthy(tag)?;
        let (client, router) = (&network.client.0, &network.router.0);
        for line in [
            format!("ip -n {router} link set far mtu 600"),
            format!("ip netns exec {client} sysctl -qw net.ipv4.tcp_mtu_probing=0"),
            format!("ip netns exec {router} iptables -A OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP"),
        ] {
            run(&line)?;
        }
        Ok(network)
    }

    /// Makes one without a black hole, over which a round trip takes so long (tc-netem(8)).
    pub(crate) fn with_delay(tag: char, round_trip: Duration) -> Result<Self, String> {
        let network = Self::healthy(tag)?;
        let (router, delay) = (&network.router.0, round_trip.as_millis() / 2);
        for link in ["near", "far"] {
            run(&format!("ip netns exec {router} tc qdisc add dev {link} root netem delay {delay}ms"))?;
        }
        Ok(network)
    }

    fn healthy(tag: char) -> Result<Self, String> {
        let make = |end: char| Namespace::make(format!("fp{}{tag}{end}", std::process::id()));
        let network = Self { client: make('c')?, server: make('s')?, router: make('r')? };
        let (client, server, router) = (&network.client.0, &network.server.0, &network.router.0);
        for line in [
            format!("ip link add eth0 netns {client} type veth peer name near netns {router}"),
            format!("ip link add eth0 netns {server} type veth peer name far netns {router}"),
            format!("ip -n {client} addr add 10.77.1.1/24 dev eth0"),
            format!("ip -n {server} addr add {SERVER}/24 dev eth0"),
            format!("ip -n {router} addr add 10.77.1.2/24 dev near"),
            format!("ip -n {router} addr add 10.77.2.2/24 dev far"),
            format!("ip -n {client} link set eth0 up"),
            format!("ip -n {server} link set eth0 up"),
            format!("ip -n {router} link set near up"),
            format!("ip -n {router} link set far up"),
            format!("ip -n {client} route add default via 10.77.1.2"),
            format!("ip -n {server} route add default via 10.77.2.2"),
            format!("ip netns exec {router} sysctl -qw net.ipv4.ip_forward=1"),
        ] {
            run(&line)?;
        }
        Ok(network)
    }

    /// Does it at the client's end; what it starts stays there.
    pub(crate) fn client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.client.inside(work)
    }

    /// Does it at the server's end.
    pub(crate) fn server<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.server.inside(work)
    }
}

impl Namespace {
    fn make(name: String) -> Result<Self, String> {
        run(&format!("ip netns add {name}"))?;
        let namespace = Self(name);
        run(&format!("ip -n {} link set lo up", namespace.0))?;
        Ok(namespace)
    }

    /// In a thread of its own, which is all that moves there; its threads and processes inherit it.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let namespace = File::open(Path::new("/run/netns").join(&self.0)).unwrap();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        let done = std::thread::scope(|scope| scope.spawn(enter).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(&format!("ip netns del {}", self.0)); // nothing more can be done
    }
}

fn run(line: &str) -> Result<(), String> {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    let output = command.args(words).output().map_err(|error| format!("{line}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
