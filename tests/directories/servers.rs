//! Servers as they are: names with several addresses, restarts, passwords that are no longer right, standby servers.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;

use crate::support::fingerpost::Fingerpost;
use crate::support::slapd::{BASE, READER, Slapd};

/// A node with this directory beside what it cannot do without. `{url}`s and the rest are the caller's.
fn node(directory: &str) -> Fingerpost {
    let node = Fingerpost::prepare();
    node.write(
        "fingerpost.toml",
        &format!(
            "[server]\nhostname = \"mx.contoso.com\"\nstate_dir = \"{{folder}}/state\"\n\n\
             [admin]\nmetrics_bind = \"{{metrics}}\"\nbind = \"{{admin}}\"\n\n\
             [[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\nremote_networks = [\"127.0.0.0/8\"]\n\n\
             [[accepted_domain]]\ndomain = \"contoso.com\"\ntype = \"internal-relay\"\ndeliver_to = \"primary\"\n\n\
             [[send_connector]]\nname = \"primary\"\norganization = \"primary\"\nsmart_hosts = [\"[127.0.0.1]:9\"]\n\n\
             [[send_connector]]\nname = \"secondary\"\norganization = \"secondary\"\n\
             smart_hosts = [\"[127.0.0.1]:9\"]\ndelivery = \"cut-through\"\n\
             address_spaces = [{{ domain = \"contoso.com\" }}]\n\n\
             [spool]\nmin_free = \"16MiB\"\n\n{directory}"
        ),
    );
    node
}

/// A directory table for slapd.
fn table(slapd: &Slapd, urls: &[String], more: &str) -> String {
    let password = slapd.password_file();
    format!(
        "[[directory]]\nname = \"ad\"\nurls = {urls:?}\nprofile = \"openldap\"\nbase = [\"{BASE}\"]\n\
         bind_dn = \"{READER}\"\npassword_file = {password:?}\nprobe = \"postmaster@contoso.com\"\n\
         mode = \"lookup\"\n{more}\n"
    )
}

/// What `check --connect` says of directories, where names are looked up in that file instead of the system's.
fn check_with_hosts(node: &Fingerpost, hosts: &str) -> String {
    node.write("hosts", hosts);
    let script = format!(
        "mount --bind {} /etc/hosts && exec {} check --connect --config {}",
        node.path("hosts").display(),
        env!("CARGO_BIN_EXE_fingerpost"),
        node.path("fingerpost.toml").display()
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    said.lines().filter(|line| line.contains("directory")).map(|line| format!("{line}\n")).collect()
}

/// Passes what comes at 127.0.0.2 on to 127.0.0.1, and keeps the same port of 127.0.0.1 for somebody who is dead: he takes
/// connections and says nothing.
fn beside_a_dead_one(to: SocketAddr) -> (u16, TcpListener) {
    let (passing, dead) = loop {
        let dead = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(passing) = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), dead.local_addr().unwrap().port())) {
            break (passing, dead);
        }
    };
    std::thread::spawn(move || {
        for client in passing.incoming() {
            let (Ok(mut client), Ok(mut server)) = (client, std::net::TcpStream::connect(to)) else { return };
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_client, &mut to_server);
                let _ = to_server.shutdown(std::net::Shutdown::Both);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut server, &mut client);
                let _ = client.flush();
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (dead.local_addr().unwrap().port(), dead)
}

#[test]
fn a_name_whose_first_address_is_dead_is_reached_at_the_second() {
    let slapd = Slapd::start();
    for (scheme, to) in [("ldaps", slapd.tls_address()), ("ldap", slapd.address())] {
        let (port, _dead) = beside_a_dead_one(to);
        let url = format!("{scheme}://localhost:{port}");
        let more = format!("timeout = \"3s\"\ntls = {{ ca = {:?} }}\n", slapd.ca());
        let node = node(&table(&slapd, &[url], &more));
        // The system says 127.0.0.1 first: it is nearest to where we come from (RFC 6724 6, rule 9).
        let said = check_with_hosts(&node, "127.0.0.1 localhost\n127.0.0.2 localhost\n");
        assert!(said.contains("ok      directory ad: finds postmaster@contoso.com"), "{scheme}: {said}");
    }
}
