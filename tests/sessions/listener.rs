//! Listening sockets and what comes through them, over real TCP and TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fingerpost::config::Config;
use fingerpost::listener::Listeners;
use rustls::pki_types::ServerName;
use support::sessions::{CONFIG, SessionSetup, config, in_force};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A configuration whose only bind has a port that the system chooses.
fn any_port(text: &str) -> String {
    text.replace("127.0.0.1:2525", "127.0.0.1:0")
}

fn listeners(setup: &SessionSetup) -> Listeners {
    let listeners = Listeners::new(setup.services.clone());
    listeners.apply(&setup.services.current.load().config).unwrap();
    listeners
}

/// The last line of the next reply; empty: closed.
async fn reply<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut BufReader<S>) -> String {
    loop {
        let mut line = String::new();
        let read = tokio::time::timeout(Duration::from_secs(20), socket.read_line(&mut line)).await;
        read.expect("the server says nothing").unwrap_or_default();
        if line.as_bytes().get(3) != Some(&b'-') {
            return line.trim_end().to_owned();
        }
    }
}

async fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(address).await.unwrap())
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut BufReader<S>, line: &str) -> String {
    socket.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    reply(socket).await
}

#[tokio::test]
async fn connections_are_limited_in_all_and_for_each_address() {
    for (limit, refusal) in [
        ("max_recipients = 3\nmax_connections = 2", "421 4.3.2"),
        ("max_recipients = 3\nmax_connections_per_ip = 2", "421 4.7.0"),
    ] {
        let setup = SessionSetup::with(&any_port(CONFIG).replacen("max_recipients = 3", limit, 1));
        let listeners = listeners(&setup);
        let address = listeners.local_addrs()[0];
        let mut first = connect(address).await;
        let mut second = connect(address).await;
        assert!(reply(&mut first).await.starts_with("220") && reply(&mut second).await.starts_with("220"));
        assert_eq!(setup.services.metrics.connections.with_label_values(&["internet"]).get(), 2);
        // Within their content nobody else gets their places.
        for socket in [&mut first, &mut second] {
            for line in ["EHLO c", "MAIL FROM:<>", "RCPT TO:<alice@contoso.com>"] {
                assert!(say(socket, line).await.starts_with("250"));
            }
            assert!(say(socket, "DATA").await.starts_with("354"));
        }
        let mut third = connect(address).await;
        assert!(reply(&mut third).await.starts_with(refusal));
        assert_eq!(reply(&mut third).await, "");
        assert!(say(&mut first, "x\r\n.\r\nQUIT").await.starts_with("250"));
        assert!(reply(&mut first).await.starts_with("221"));
        drop(first);
        let again = async {
            loop {
                let mut next = connect(address).await;
                if reply(&mut next).await.starts_with("220") {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), again).await.expect("a seat is never free again");
    }
}

#[tokio::test]
async fn the_most_specific_network_chooses_the_connector() {
    let text = any_port(CONFIG).replace("192.0.2.77/32", "127.0.0.2/32").replacen(
        "max_message_size",
        "remote_networks = [\"127.0.0.0/30\"]\nmax_message_size",
        1,
    );
    let setup = SessionSetup::with(&text);
    let listeners = listeners(&setup);
    let address = listeners.local_addrs()[0];
    for (client, greeting, connector) in [
        ("127.0.0.1", "220", Some("internet")),
        ("127.0.0.2", "220", Some("secondary")),
        ("127.0.0.9", "554 5.7.1", None),
    ] {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{client}:0").parse().unwrap()).unwrap();
        let mut socket = BufReader::new(socket.connect(address).await.unwrap());
        assert!(reply(&mut socket).await.starts_with(greeting), "{client}");
        if let Some(connector) = connector {
            assert_eq!(setup.services.metrics.connections_total.with_label_values(&[connector]).get(), 1, "{client}");
        }
    }
    assert_eq!(setup.services.metrics.sessions_refused.with_label_values(&["no-connector"]).get(), 1);
}

#[tokio::test]
async fn a_flood_of_those_who_are_turned_away_takes_no_more_sockets_than_a_few() {
    let setup = SessionSetup::with(&any_port(CONFIG).replacen("max_recipients = 3", "max_connections_per_ip = 1", 1));
    let listeners = listeners(&setup);
    let address = listeners.local_addrs()[0];
    let mut first = connect(address).await;
    assert!(reply(&mut first).await.starts_with("220"));
    let mut told = Vec::new();
    let silent = loop {
        let mut next = connect(address).await;
        match reply(&mut next).await.as_str() {
            "" => break true,
            why => assert!(why.starts_with("421 4.7.0"), "{why}"),
        }
        told.push(next); // it stays, and says nothing
        if told.len() > 300 {
            break false;
        }
    };
    assert!(silent && told.len() > 100, "{} were told", told.len());
}

/// A second configuration in force, applied.
fn change(setup: &SessionSetup, listeners: &Listeners, text: &str) -> Result<(), String> {
    let next: Config = config(text, setup.folder());
    listeners.apply(&next).map_err(|error| error.to_string())?;
    setup.services.current.store(Arc::new(in_force(next)));
    Ok(())
}

#[tokio::test]
async fn a_change_opens_and_closes_what_changed_and_nothing_else() {
    let setup = SessionSetup::with(&any_port(CONFIG));
    let listeners = listeners(&setup);
    let address = listeners.local_addrs()[0];
    let mut client = connect(address).await;
    assert!(reply(&mut client).await.starts_with("220"));

    let two = any_port(CONFIG).replacen("[\"127.0.0.1:0\"]", "[\"127.0.0.1:0\", \"127.0.0.2:0\"]", 1);
    change(&setup, &listeners, &two).unwrap();
    let addresses = listeners.local_addrs();
    assert!(addresses.len() == 2 && addresses.contains(&address), "{addresses:?}");
    assert!(reply(&mut connect(addresses[1]).await).await.starts_with("220"));

    // One bind that cannot be had, and nothing changes.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let bad = CONFIG.replace("\"127.0.0.1:2525\"", &format!("\"127.0.0.4:0\", \"{taken}\""));
    let error = change(&setup, &listeners, &bad).unwrap_err();
    assert!(error.starts_with(&format!("receive connector `internet`: cannot listen on {taken}: ")), "{error}");
    assert_eq!(listeners.local_addrs(), addresses);

    // Sessions outlive their bind, but begin no transaction.
    change(&setup, &listeners, &CONFIG.replace("127.0.0.1:2525", "127.0.0.3:0")).unwrap();
    assert_eq!(listeners.local_addrs().len(), 1);
    assert!(say(&mut client, "EHLO c").await.starts_with("250"));
    assert!(say(&mut client, "MAIL FROM:<>").await.starts_with("421 4.3.2"));
    let closed = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), closed).await.expect("the bind stays open");
}

/// Connects until it is greeted: whoever was in the queue of a socket that closes has to come again.
async fn greets(address: SocketAddr) {
    let greeted = async {
        loop {
            let mut line = String::new();
            let Ok(socket) = TcpStream::connect(address).await else { continue };
            let read = BufReader::new(socket).read_line(&mut line).await;
            if read.is_ok() && line.starts_with("220") {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), greeted).await.expect("nobody greets");
}

#[tokio::test]
async fn a_bind_may_be_replaced_by_one_on_the_same_port() {
    let port = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let with = |bind: &str| CONFIG.replace("127.0.0.1:2525", bind).replace("[127.0.0.", "[192.0.2.");
    let (all, one) = (format!("0.0.0.0:{port}"), format!("127.0.0.1:{port}"));
    let setup = SessionSetup::with(&with(&all));
    let listeners = listeners(&setup);
    for bind in [&one, &all, &one] {
        change(&setup, &listeners, &with(bind)).unwrap();
        assert_eq!(listeners.local_addrs(), [bind.parse().unwrap()]);
        greets(one.parse().unwrap()).await;
    }
    // Where another bind of the change cannot be had, the old one is there as before, and nobody shares its port.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("{all}\", \"{}", other.local_addr().unwrap());
    change(&setup, &listeners, &with(&taken)).unwrap_err();
    assert_eq!(listeners.local_addrs(), [one.parse().unwrap()]);
    greets(one.parse().unwrap()).await;
    for address in [&one, &all] {
        let second = fingerpost::net::listen(address.parse().unwrap(), None).unwrap_err();
        assert_eq!(second.kind(), std::io::ErrorKind::AddrInUse);
    }
}

#[tokio::test]
async fn draining_accepts_nobody_and_waits_for_sessions() {
    let setup = SessionSetup::with(&any_port(CONFIG));
    let listeners = listeners(&setup);
    let address = listeners.local_addrs()[0];
    let mut client = connect(address).await;
    assert!(reply(&mut client).await.starts_with("220"));
    for line in ["EHLO c", "MAIL FROM:<>", "RCPT TO:<alice@contoso.com>"] {
        assert!(say(&mut client, line).await.starts_with("250"));
    }
    let ends = async {
        assert!(say(&mut client, "DATA").await.starts_with("354"));
        assert!(say(&mut client, "x\r\n.").await.starts_with("250"));
        assert!(reply(&mut client).await.starts_with("421 4.3.2"));
        drop(client);
    };
    tokio::join!(listeners.drain(Duration::from_secs(20)), ends);
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(setup.take_committed().len(), 1);
    assert_eq!(setup.services.metrics.connections.with_label_values(&["internet"]).get(), 0);
}

#[tokio::test]
async fn a_session_in_clear_ends_where_its_door_demands_tls_now() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let setup = SessionSetup::with_files(&any_port(CONFIG), folder);
    let listeners = listeners(&setup);
    let mut client = connect(listeners.local_addrs()[0]).await;
    assert!(reply(&mut client).await.starts_with("220"));
    assert!(say(&mut client, "EHLO c").await.starts_with("250"));
    assert!(say(&mut client, "MAIL FROM:<>").await.starts_with("250"));
    change(&setup, &listeners, &with_tls("required")).unwrap();
    // The transaction under way keeps what it began with.
    assert!(say(&mut client, "RCPT TO:<alice@contoso.com>").await.starts_with("250"));
    assert!(say(&mut client, "RSET").await.starts_with("250"));
    assert!(say(&mut client, "MAIL FROM:<>").await.starts_with("421 4.3.2"));
}

/// Writes a certificate; returns a client that trusts it.
fn certificate(folder: &Path) -> tokio_rustls::TlsConnector {
    let made = rcgen::generate_simple_self_signed(vec!["mx.contoso.com".into()]).unwrap();
    std::fs::write(folder.join("mx.crt"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("mx.key"), made.signing_key.serialize_pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(client.with_root_certificates(roots).with_no_client_auth()).into()
}

/// The configuration with TLS of this mode at the first door.
fn with_tls(mode: &str) -> String {
    let tls = format!("tls = {{ mode = \"{mode}\", certificate = \"mx.crt\", key = \"mx.key\" }}\nmax_message_size");
    any_port(CONFIG).replacen("max_message_size", &tls, 1).replace(
        "organization = \"secondary\"\n[[accepted",
        &format!("organization = \"secondary\"\n{}\n[[accepted", tls.trim_end_matches("\nmax_message_size")),
    )
}

#[tokio::test]
async fn starttls_encrypts_and_throws_away_what_was_injected() {
    let folder = tempfile::tempdir().unwrap();
    let tls = certificate(folder.path());
    let setup = SessionSetup::with_files(&with_tls("required"), folder);
    let listeners = listeners(&setup);
    let mut client = connect(listeners.local_addrs()[0]).await;
    assert!(reply(&mut client).await.starts_with("220"));
    assert_eq!(say(&mut client, "EHLO c").await, "250 STARTTLS");
    assert!(say(&mut client, "MAIL FROM:<>").await.starts_with("530 5.7.0"));
    let ready = say(&mut client, "STARTTLS\r\nMAIL FROM:<evil@fabrikam.example>").await;
    assert!(ready.starts_with("220 2.0.0"), "{ready}");
    let name = ServerName::try_from("mx.contoso.com").unwrap();
    let mut client = BufReader::new(tls.connect(name, client.into_inner()).await.unwrap());
    assert!(say(&mut client, "RCPT TO:<alice@contoso.com>").await.starts_with("503"), "the injected MAIL is gone");
    assert_eq!(say(&mut client, "EHLO c").await, "250 CHUNKING");
    for line in ["MAIL FROM:<>", "RCPT TO:<alice@contoso.com>"] {
        assert!(say(&mut client, line).await.starts_with("250"));
    }
    assert!(say(&mut client, "DATA").await.starts_with("354"));
    assert!(say(&mut client, "x\r\n.").await.starts_with("250"));
    let received = String::from_utf8(setup.take_committed().remove(0).1).unwrap();
    assert!(received.contains("with ESMTPS id "), "{received}");
    assert!(setup.services.metrics.certificate_expiry.with_label_values(&["internet"]).get() > 1_800_000_000);
}

#[tokio::test]
async fn implicit_tls_speaks_first_and_a_broken_handshake_ends_the_session() {
    let folder = tempfile::tempdir().unwrap();
    let tls = certificate(folder.path());
    let setup = SessionSetup::with_files(&with_tls("implicit"), folder);
    let listeners = listeners(&setup);
    let address = listeners.local_addrs()[0];
    let name = ServerName::try_from("mx.contoso.com").unwrap();
    let mut client = BufReader::new(tls.connect(name, TcpStream::connect(address).await.unwrap()).await.unwrap());
    assert!(reply(&mut client).await.starts_with("220 mx.contoso.com"));
    assert_eq!(say(&mut client, "EHLO c").await, "250 CHUNKING");
    let mut plain = connect(address).await;
    plain.write_all(b"EHLO c\r\n").await.unwrap();
    assert!(!reply(&mut plain).await.starts_with("2"));
}

#[tokio::test]
async fn who_is_silent_where_tls_comes_first_gives_way_to_who_is_not() {
    for mode in ["implicit", "required"] {
        let folder = tempfile::tempdir().unwrap();
        let tls = certificate(folder.path());
        let setup =
            SessionSetup::with_files(&with_tls(mode).replacen("max_recipients = 3", "max_connections = 1", 1), folder);
        let listeners = listeners(&setup);
        let address = listeners.local_addrs()[0];
        let shake_hands = |socket: TcpStream| tls.connect(ServerName::try_from("mx.contoso.com").unwrap(), socket);
        let mut silent = connect(address).await;
        if mode == "required" {
            assert!(
                reply(&mut silent).await.starts_with("220") && say(&mut silent, "STARTTLS").await.starts_with("220")
            );
        }
        let mut honest = connect(address).await;
        if mode == "required" {
            assert!(
                reply(&mut honest).await.starts_with("220") && say(&mut honest, "STARTTLS").await.starts_with("220")
            );
        }
        let mut honest = BufReader::new(shake_hands(honest.into_inner()).await.unwrap());
        assert_eq!(reply(&mut silent).await, "", "a reply in clear text would mean nothing");
        assert!(say(&mut honest, "EHLO c").await.starts_with("2"));
        assert_eq!(setup.services.metrics.sessions_sent_away.with_label_values(&["place-wanted"]).get(), 1, "{mode}");
    }
}
