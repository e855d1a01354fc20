//! What TLS failures are called, and client certificates, with real servers: slapd, Samba, and OpenSSL's for what these do
//! not do by mistake.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};

use fingerpost::config::{CertificateFiles, LdapConfig};
use fingerpost::lookup::Kind;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::active_directory;
use crate::asker::{Asker, LookupResult, openldap};
use support::certificates::{Authority, Issued};
use support::daemon::Daemon;
use support::free_port;
use support::samba_ad::SambaAd;
use support::slapd::{READER, Slapd};

/// OpenSSL's server with that certificate.
fn openssl(issued: &Issued, arguments: &[&str]) -> (Daemon, String) {
    let port = free_port(Ipv4Addr::LOCALHOST);
    let mut command = Command::new("openssl");
    command.args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-cert"]).arg(&issued.certificate);
    command.arg("-key").arg(&issued.key).args(arguments).stdin(Stdio::piped()).stdout(Stdio::null());
    command.stderr(Stdio::null());
    (Daemon::start(&mut command, ([127, 0, 0, 1], port).into()), format!("ldaps://localhost:{port}"))
}

/// Why nobody is found there.
async fn cause(config: &LdapConfig, url: &str) -> String {
    Asker::new(&LdapConfig { urls: vec![url.to_owned()], ..config.clone() }).cause("postmaster@contoso.com").await
}

/// Nobody logs in here: it is not come to that.
fn trusting(folder: &std::path::Path, ca: &std::path::Path) -> LdapConfig {
    let password = folder.join("a-password");
    std::fs::write(&password, "secret").unwrap();
    let probe = Some(fingerpost::smtp::address::Address::parse("postmaster@contoso.com").unwrap());
    LdapConfig { ca: Some(ca.to_owned()), password_file: Some(password), probe, ..active_directory::unreached() }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_speak_tls_otherwise_are_told_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let good = authority.issue(&["localhost"]);
    let config = trusting(folder.path(), &authority.file());
    let ca = authority.file().display().to_string();
    for (arguments, words) in [
        (
            &["-tls1", "-cipher", "ALL:@SECLEVEL=0"][..],
            "speaks no TLS 1.2 or 1.3, only what is no longer safe; switch TLS 1.2 on",
        ),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "speaks no TLS 1.2 or 1.3"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], "no cipher suite in common"),
        (&["-tls1_3", "-Verify", "1", "-CAfile", &ca], "wants a client certificate; write certificate and key in tls"),
        (&["-tls1_2", "-Verify", "1", "-CAfile", &ca], "it wants a client certificate"),
    ] {
        let (_server, url) = openssl(&good, arguments);
        let said = cause(&config, &url).await;
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_are_not_right_are_told_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path());
    let config = trusting(folder.path(), &authority.file());
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Authority::new(elsewhere.path()).issue(&["localhost"]);
    type Change = fn(&mut CertificateParams);
    let cases: [(&str, &[&str], Change, &str); 4] = [
        (
            "old",
            &["localhost"],
            |it| it.not_after = rcgen::date_time_ymd(2020, 1, 1),
            "(it ended at 2020-01-01T00:00:00Z)",
        ),
        (
            "young",
            &["localhost"],
            |it| it.not_before = rcgen::date_time_ymd(2090, 1, 1),
            "not valid yet; see the clocks",
        ),
        ("other", &["dc1.contoso.com"], |_| {}, "has another name; write a name that it has in urls"),
        (
            "client",
            &["localhost"],
            |it| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            "not for servers",
        ),
    ];
    let mut shown: Vec<(Issued, &str)> = cases
        .into_iter()
        .map(|(stem, names, change, words)| (authority.issue_as(stem, names, change), words))
        .collect();
    // A CA of the same name with another key.
    shown.push((foreign, "the CA may have a new key: write its present certificate to tls.ca"));
    for (issued, words) in shown {
        let (_server, url) = openssl(&issued, &[]);
        let said = cause(&config, &url).await;
        assert!(said.contains(words), "{}: {said}", issued.certificate.display());
    }
    // What is signed by itself, and trusted as it is.
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let own = Issued { certificate: folder.path().join("own.pem"), key: folder.path().join("own.key") };
    std::fs::write(&own.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&own.key, key.serialize_pem()).unwrap();
    let (_server, url) = openssl(&own, &[]);
    let config = LdapConfig { ca: Some(own.certificate.clone()), ..config };
    let said = cause(&config, &url).await;
    assert!(said.contains("shows a CA's certificate as its own (self-signed)"), "{said}");
    let (_server, url) = openssl(&authority.issue(&["localhost"]), &[]);
    let said = cause(&config, &url).await;
    assert!(
        said.contains("of a CA that we do not trust; write the CA's certificate to a file and name it in tls.ca"),
        "{said}"
    );
}

/// A server that says this to whoever comes, and closes.
fn says(octets: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(octets);
        }
    });
    format!("localhost:{port}")
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_are_for_something_else_are_told_so() {
    let slapd = Slapd::start();
    let config = LdapConfig { ca: Some(slapd.ca()), ..openldap(&slapd) };
    let http = says(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let closes = says(b"");
    let refuses = says(b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x34\x04\x00\x04\x00");
    let clear = slapd.tls_url().replace("ldaps:", "ldap:");
    for (url, start_tls, words) in [
        (slapd.url().replace("ldap://127.0.0.1", "ldaps://localhost"), false, "write ldaps:// with 636"),
        (format!("ldaps://{http}"), false, "what answers is not TLS"),
        (
            format!("ldaps://{closes}"),
            false,
            "closes the connection as soon as TLS begins; see that it has a certificate",
        ),
        (format!("ldap://{refuses}"), true, "does not begin TLS; give it a certificate"),
        (clear, false, "if this port is for TLS (636, 3269), write ldaps://"),
    ] {
        let said = cause(&LdapConfig { start_tls, ..config.clone() }, &url).await;
        let right = said.contains(words) || words.starts_with("write") && said.contains("port for ldaps://");
        assert!(right, "{url}: {said}");
    }
}

#[tokio::test]
async fn a_controller_with_tls_1_0_only_is_told_so() {
    let mut samba = SambaAd::start();
    let config = LdapConfig { urls: vec![samba.tls_url()], ..active_directory::config(&samba) };
    samba.restart_with(&["tls priority=NORMAL:-VERS-ALL:+VERS-TLS1.0"]);
    let said = Asker::new(&config).cause("postmaster@contoso.test").await;
    // GnuTLS says nothing, nor does Windows.
    assert!(
        said.contains("closes the connection as soon as TLS begins; see that it has a certificate and speaks TLS 1.2"),
        "{said}"
    );
    samba.restart();
    assert_eq!(Asker::new(&config).ask("postmaster@contoso.test").await, LookupResult::Found(Kind::Mailbox));
}

/// A client certificate of that name by slapd's own authority.
fn client(authority: &Authority, name: &str) -> CertificateFiles {
    let Issued { certificate, key } = authority.issue_as(name, &[], |params| {
        params.distinguished_name.push(DnType::CommonName, "fingerpost node");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    CertificateFiles { certificate, key }
}

#[tokio::test]
async fn a_client_certificate_is_bound_with() {
    let mut slapd = Slapd::start();
    slapd.configure_server("olcTLSCACertificateFile", &slapd.ca().display().to_string());
    slapd.configure_server("olcTLSVerifyClient", "demand");
    slapd.configure_server("olcAuthzRegexp", &format!("{{0}}\"cn=fingerpost node\" \"{READER}\""));
    slapd.configure(
        "olcAccess",
        &format!("{{0}}to attrs=userPassword by anonymous auth\nolcAccess: {{1}}to * by dn.exact=\"{READER}\" read"),
    );
    slapd.restart();
    let certificate = Some(client(slapd.authority(), "client"));
    let password = openldap(&slapd);
    let by_certificate = LdapConfig {
        ca: Some(slapd.ca()),
        certificate,
        bind_dn: String::new(),
        password_file: None,
        ..password.clone()
    };
    for (url, start_tls) in [(slapd.tls_url(), false), (slapd.url().replace("127.0.0.1", "localhost"), true)] {
        let config = LdapConfig { urls: vec![url.clone()], start_tls, ..by_certificate.clone() };
        assert_eq!(
            Asker::new(&config).ask("postmaster@contoso.com").await,
            LookupResult::Found(Kind::Mailbox),
            "{url}"
        );
        // With a name and a password it is shown all the same.
        let (bind_dn, password_file) = (password.bind_dn.clone(), password.password_file.clone());
        let both = LdapConfig { bind_dn, password_file, ..config.clone() };
        assert_eq!(Asker::new(&both).ask("postmaster@contoso.com").await, LookupResult::Found(Kind::Mailbox), "{url}");
        let said = cause(&LdapConfig { certificate: None, ..both }, &url).await;
        assert!(said.contains("client certificate"), "{url}: {said}");
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Some(client(&Authority::new(elsewhere.path()), "client"));
    let said = cause(&LdapConfig { certificate: foreign, ..by_certificate.clone() }, &slapd.tls_url()).await;
    assert!(said.contains("client certificate"), "{said}");

    // It asks for none: nobody is who he says.
    slapd.configure_server("olcTLSVerifyClient", "never");
    slapd.restart();
    let said = cause(&by_certificate, &slapd.tls_url()).await;
    assert!(said.contains("the bind by certificate (SASL EXTERNAL) is answered"), "{said}");
}
