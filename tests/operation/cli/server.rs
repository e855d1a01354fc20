//! Commands and HTTP while the server runs.

use std::net::TcpStream;

use super::installation::{Installation, eventually};

#[test]
fn the_server_is_seen_and_stops_when_it_is_told() {
    let installation = Installation::new();
    let server = installation.serve();
    let ran = installation.run(&["status"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("mx.contoso.example: serving"), "{ran:?}");
    let status: serde_json::Value =
        serde_json::from_str(&installation.run(&["status", "--format", "json"]).out).unwrap();
    assert_eq!(status["accepted_domains"][0]["domain"], "contoso.example");
    assert_eq!(status["directories"][0]["state"], "up");
    let ran = installation.run(&["route", "bob@contoso.example", "--from", "127.0.0.9"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.starts_with("bob@contoso.example: relayed through secondary"), "{ran:?}");

    let second = installation.run(&["run"]);
    assert_eq!(second.code, 2, "{second:?}");
    let drained = installation.run(&["drain"]);
    assert!(drained.code == 2 && drained.err.contains("without [cluster] there is nobody"), "{drained:?}");
    assert_eq!(server.stop(), 0);
    assert!(TcpStream::connect(installation.smtp).is_err());
    assert!(installation.log().contains("\"message\":\"stopped\""), "{}", installation.log());
}

#[test]
fn the_api_opens_to_the_token_alone() {
    let installation = Installation::new();
    let _server = installation.serve();
    let bearer = format!("Bearer {}", installation.token());
    let basic = format!(
        "Basic {}",
        base64::Engine::encode(&base64::prelude::BASE64_STANDARD, format!("x:{}", installation.token()))
    );
    let status = |path, headers: &[(&str, &str)]| installation.get(installation.admin, path, headers).unwrap().0;
    for (path, headers, expected) in [
        ("/api/status", &[][..], 401),
        ("/api/status", &[("Authorization", "Bearer wrong")], 401),
        ("/api/status", &[("Authorization", basic.as_str())], 401),
        ("/api/status", &[("Authorization", bearer.as_str())], 200),
        ("/api/status", &[("Authorization", bearer.as_str()), ("Host", "attacker.example")], 421),
        ("/", &[], 401),
        ("/", &[("Authorization", bearer.as_str())], 401),
        ("/", &[("Authorization", basic.as_str())], 200),
        ("/metrics", &[("Authorization", bearer.as_str())], 404),
        ("/api/route?address=nonsense", &[("Authorization", bearer.as_str())], 400),
        ("/api/queue/nonsense", &[("Authorization", bearer.as_str())], 400),
    ] {
        assert_eq!(status(path, headers), expected, "{path} {headers:?}");
    }
    let page = installation.get(installation.admin, "/", &[("Authorization", &basic)]).unwrap().1;
    assert!(page.contains("contoso.example") && !page.contains("<script"), "{page}");
    assert!(!page.contains(&installation.token()) && !installation.log().contains(&installation.token()));
}

#[test]
fn metrics_are_there_from_the_start_and_nothing_else_is() {
    let installation = Installation::new();
    let _server = installation.serve();
    let get = |path| installation.get(installation.metrics, path, &[]).unwrap();
    assert_eq!(get("/healthz"), (200, "alive\n".into()));
    assert_eq!(get("/").0, 404);
    assert_eq!(get("/api/status").0, 404);
    let metrics = get("/metrics").1;
    for series in [
        "fingerpost_connections{receive_connector=\"internet\"} 0",
        "fingerpost_recipients_total{domain=\"contoso.example\",verdict=\"resolved\"} 0",
        "fingerpost_recipients_total{domain=\"other\",verdict=\"refused\"} 0",
        "fingerpost_deliveries_total{result=\"failed\",send_connector=\"secondary\"} 0",
        "fingerpost_directory_up{directory=\"people\"} 1",
        "fingerpost_directory_lookups_total{directory=\"people\",result=\"not-found\"} 0",
        "fingerpost_queue_messages{send_connector=\"secondary\",state=\"waiting\"} 0",
        "fingerpost_loops_total{rule=\"stamp\"} 0",
        "fingerpost_back_pressure{reason=\"disk\",turned_away=\"everybody\"} 0",
    ] {
        assert!(metrics.lines().any(|line| line == series), "{series} is missing in\n{metrics}");
    }
}

#[test]
fn a_running_server_is_no_open_relay_and_no_next_hop_of_its_own() {
    let installation = Installation::new();
    let _server = installation.serve();
    let ran = installation.run(&["check", "--connect"]);
    assert!(ran.out.contains("ok      open relay at") && ran.out.contains("550 5.7.1 relaying denied"), "{ran:?}");
    // The file has another bind meanwhile: what it names is a server of our name, and no listener in the file.
    let back = format!("smart_hosts = [\"{}\"]", installation.smtp.to_string().replace("127.0.0.1", "[127.0.0.1]"));
    let configuration =
        installation.configuration().replace(&format!("[\"{}\"]", installation.smtp), "[\"127.0.0.1:0\"]");
    let nobody = configuration.lines().find(|line| line.starts_with("smart_hosts")).unwrap();
    installation.write(&configuration.replace(nobody, &back));
    let ran = installation.run(&["check", "--connect"]);
    assert!(ran.out.contains("greets with our own host name"), "{ran:?}");
}

#[test]
fn queued_mail_is_seen_tried_again_and_dropped() {
    let installation = Installation::new();
    let server = installation.serve();
    assert_eq!(installation.run(&["queue", "list"]).out, "the queue is empty\n");
    assert!(installation.send("bob@contoso.example").starts_with("250 2.0.0"));
    let list = || -> serde_json::Value {
        serde_json::from_str(&installation.run(&["queue", "list", "--format", "json"]).out).unwrap()
    };
    eventually("the first attempt fails", || list()["messages"][0]["recipients"][0]["attempts"] == 1);
    assert_eq!(server.stop(), 0);

    let server = installation.serve();
    let listed = list();
    assert_eq!(listed["total"], 1, "{listed}");
    let id = listed["messages"][0]["id"].as_str().unwrap().to_owned();
    let ran = installation.run(&["queue", "show", &id]);
    assert!(ran.out.contains("recipient <bob@contoso.example> by secondary"), "{ran:?}");
    assert_eq!(
        installation.run(&["queue", "retry", &id]).out,
        "1 message is due now; reports still wait for their turn\n"
    );
    assert_eq!(installation.run(&["queue", "retry", "--all"]).code, 0);
    assert_eq!(installation.run(&["queue", "retry", "--connector", "secondary"]).code, 0);
    let ran = installation.run(&["queue", "retry", "--connector", "nowhere & co"]);
    assert!(ran.code == 1 && ran.err.contains("no send connector `nowhere & co`"), "{ran:?}");
    let ran = installation.run(&["queue", "list", "--after", &id, "--format", "json"]);
    let behind: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&behind["total"], behind["messages"].as_array().map(Vec::len)), (&1.into(), Some(0)));
    let ran = installation.run(&["queue", "list", "--after", &id]);
    assert!(ran.out.ends_with("1 messages, none of them behind that one\n"), "{ran:?}");
    eventually("it can be dropped", || installation.run(&["queue", "drop", &id]).code == 0);
    eventually("it is gone", || list()["total"] == 0);
    let ran = installation.run(&["queue", "drop", &id]);
    assert_eq!((ran.code, ran.err.lines().count()), (1, 1), "{ran:?}");
    assert_eq!(installation.run(&["queue", "show", &id]).code, 1);
    drop(server);
}

#[test]
fn a_message_can_be_traced() {
    let installation = Installation::new();
    let _server = installation.serve();
    assert_eq!(installation.run(&["trace"]).code, 1);
    assert!(installation.send("alice@contoso.example").starts_with("250 2.0.0"));
    eventually("its delivery is traced", || {
        installation.run(&["trace", "--recipient", "ALICE@", "--message-id", "one@x"]).out.contains(" delivered ")
    });
    let csv = installation.run(&["trace", "--format", "csv"]).out;
    assert!(csv.starts_with("at,id,session,what,sender,recipient,"), "{csv}");
    assert_eq!(installation.run(&["trace", "--recipient", "nobody@"]).code, 1);
    assert_eq!(installation.run(&["trace", "--since", "yesterday"]).code, 2);
}

/// Characters that turn what stands around them, or end a line for some readers; and text without end.
#[test]
fn what_strangers_choose_turns_no_text_and_fills_no_log() {
    const TURNING: [char; 5] = ['\u{202e}', '\u{2066}', '\u{2028}', '\u{85}', '\u{200f}'];
    let installation = Installation::new();
    let server = installation.serve();
    let turning: String = TURNING.iter().collect();
    let header = format!("Message-ID: <{turning}@x.example>");
    assert!(installation.send_with("bob@contoso.example", &header).starts_with("250 2.0.0"));
    let header = format!("Message-ID: <{}@x.example>", "m".repeat(900));
    assert!(installation.send_with("bob@contoso.example", &header).starts_with("250 2.0.0"));
    let queued: serde_json::Value =
        serde_json::from_str(&installation.run(&["queue", "list", "--format", "json"]).out).unwrap();
    let messages = queued["messages"].as_array().unwrap();
    let of_them = |message: &&serde_json::Value| message["message_id"].as_str().unwrap().contains(&turning);
    let id = messages.iter().find(of_them).expect("JSON means the same")["id"].as_str().unwrap();
    let mut outputs = vec![installation.run(&["queue", "show", id]).out];
    assert!(outputs[0].contains("<\\u{202e}\\u{2066}\\u{2028}\\u{85}\\u{200f}@x.example>"), "{outputs:?}");
    for command in
        [&["trace"][..], &["trace", "--format", "json"], &["queue", "list"], &["queue", "list", "--format", "json"]]
    {
        outputs.push(installation.run(command).out);
    }
    let bearer = format!("Bearer {}", installation.token());
    eventually("it is in the trace", || {
        installation.run(&["trace", "--format", "json"]).out.matches("x.example").count() > 1
    });
    for path in ["/api/queue".to_owned(), format!("/api/queue/{id}"), "/api/trace".to_owned()] {
        let (_, body) = installation.get(installation.admin, &path, &[("Authorization", &bearer)]).unwrap();
        assert!(body.contains("<\\u202e\\u2066\\u2028\\u0085\\u200f@x.example>"), "{body}");
        outputs.push(body);
    }
    assert_eq!(server.stop(), 0);
    let accepted = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
    let accepted: Vec<_> =
        installation.log().lines().filter_map(accepted).filter(|line| line["message"] == "message accepted").collect();
    assert_eq!(accepted[0]["message_id"], format!("<{turning}@x.example>"));
    let shown = accepted[1]["message_id"].as_str().unwrap();
    let missing = shown.split_once("m[+").and_then(|(_, rest)| rest.strip_suffix(" octets]")).unwrap();
    assert!(shown.len() <= 256 && missing.parse::<usize>().unwrap() > 900 - 256, "{shown}");
    outputs.push(installation.log());
    for output in outputs {
        assert!(!output.contains(TURNING), "{output}");
    }
}

#[test]
fn a_reload_is_taken_or_told() {
    let installation = Installation::new();
    let server = installation.serve();
    let good = installation.configuration();
    assert_eq!(installation.run(&["reload"]).code, 0);
    installation.write(&good.replace("ours.example", "theirs.example").replace("[spool]", "[spol]"));
    let ran = installation.run(&["reload"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("refused, the old configuration stays") && ran.out.contains("spol"), "{ran:?}");
    let ran = installation.run(&["status"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("not taken: ") && ran.out.contains("ours.example"), "{ran:?}");

    installation.write(&good.replace("ours.example", "theirs.example"));
    server.signal("HUP");
    eventually("SIGHUP reloads", || installation.run(&["route", "nobody@theirs.example"]).out.contains("row 9"));
    let metrics = installation.get(installation.metrics, "/metrics", &[]).unwrap().1;
    assert!(metrics.contains("fingerpost_config_reloads_total{result=\"applied\"} 1"), "{metrics}");
    assert!(metrics.contains("domain=\"theirs.example\"") && !metrics.contains("domain=\"ours.example\""), "{metrics}");
    assert!(installation.run(&["route", "nobody@ours.example"]).out.contains("row 0"));
}
