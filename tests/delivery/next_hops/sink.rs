//! Against a server that we did not write: Postfix's `smtp-sink`, many messages at once, counted on its side.

use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fingerpost::delivery::attempt::Outbound;
use fingerpost::metrics::Metrics;

use support::free_port;
use support::letter::{Letter, connector, in_words, smart_host, smtp_out};

/// `smtp-sink`, which writes every message it takes to a file of its own. Killed when dropped.
struct Sink(Child);

impl Sink {
    fn start(folder: &Path, port: u16, options: &[&str]) -> Self {
        let listen = format!("127.0.0.1:{port}");
        let dump = format!("{}/%M.", folder.display());
        let mut command = Command::new("/usr/sbin/smtp-sink");
        if rustix::process::geteuid().is_root() {
            // It refuses to stay root.
            command.args(["-u", "nobody"]);
            std::fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
        }
        command.args(options).args(["-d", &dump, &listen, "100"]).stderr(Stdio::null());
        let child = command.spawn().expect("smtp-sink, which Debian's package postfix has");
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(&listen).is_err() {
            assert!(Instant::now() < deadline, "smtp-sink does not listen on {listen}");
            std::thread::yield_now();
        }
        Self(child)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the sink wrote, without the lines that it puts on top itself.
fn messages(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    files.filter(|text| text.contains("Subject:")).collect()
}

#[tokio::test]
async fn five_hundred_messages_arrive_once_each() {
    // As it is, without pipelining, and without ESMTP.
    for options in [&[][..], &["-p"], &["-e"]] {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port(Ipv4Addr::LOCALHOST);
        let _sink = Sink::start(folder.path(), port, options);
        let out = Arc::new(connector(smtp_out(vec![smart_host(([127, 0, 0, 1], port).into())])));
        let outbound = Outbound::new(Metrics::new());
        let senders = (0..20).map(|sender| {
            let (outbound, out) = (outbound.clone(), out.clone());
            tokio::spawn(async move {
                for n in 0..25 {
                    let body = format!("Subject: <{sender}/{n}>\r\n\r\n.dots\r\n..\r\n.\r\nend\r\n");
                    let letter = Letter::to(&["a@contoso.com", "b@contoso.com"]).saying(body.as_bytes());
                    let told = in_words(&letter.send(&outbound, &out).await);
                    assert!(told.iter().all(|told| told.starts_with("accepted")), "{told:?}");
                }
            })
        });
        for sender in senders.collect::<Vec<_>>() {
            sender.await.unwrap();
        }
        let got = messages(folder.path());
        assert_eq!(got.len(), 500, "{options:?}");
        for sender in 0..20 {
            for n in 0..25 {
                let subject = format!("Subject: <{sender}/{n}>");
                let found: Vec<_> = got.iter().filter(|text| text.contains(&subject)).collect();
                assert_eq!(found.len(), 1, "{subject}");
                let body = found[0].replace("\r\n", "\n");
                // The sink ends every message with an empty line of its own.
                assert!(body.ends_with("\n\n.dots\n..\n.\nend\n\n"), "{body:?}");
            }
        }
    }
}
