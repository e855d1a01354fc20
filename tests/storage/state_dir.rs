//! What a local user finds: whom the program runs as, and who may read or lead astray what it keeps.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::senders::Raw;
use support::sink::Sink;
use support::tables::{BASE_TABLES, PEOPLE, accepted_domain, send_connector};
use support::test_node::TestNode;

/// A user that every system has.
const USER: &str = "nobody";
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A node with `[server]` lines and a bind of its own.
fn prepare_node(server: &str, bind: &str, sink: &Sink) -> TestNode {
    let node = TestNode::prepare();
    node.write("people.csv", "address\nann@contoso.test\n");
    configure(&node, server, bind, sink);
    // Others may come to the state folder, if its own rights let them.
    fs::set_permissions(node.folder(), Permissions::from_mode(0o755)).unwrap();
    node
}

fn configure(node: &TestNode, server: &str, bind: &str, sink: &Sink) {
    let head = BASE_TABLES.replace("[server]\n", &format!("[server]\n{server}\n"));
    let domain = accepted_domain("contoso.test", "primary");
    let door = format!("[[receive_connector]]\nname = \"door\"\nbind = [\"{bind}\"]\n\n");
    let primary = send_connector("primary", sink.address(), "delivery = \"queue\"");
    node.write("fingerpost.toml", &format!("{head}{PEOPLE}{domain}{door}{primary}"));
}

fn send(to: SocketAddr) {
    let mut raw = Raw::hello(to);
    for (line, code) in [
        ("MAIL FROM:<s@sender.test>", 250),
        ("RCPT TO:<ann@contoso.test>", 250),
        ("DATA", 354),
        ("Subject: x\r\n\r\nx\r\n.", 250),
    ] {
        assert_eq!(raw.say(line).0, code, "{line}");
    }
}

/// All files and folders, the first one included.
fn all(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut at = 0;
    while at < found.len() {
        if found[at].is_dir() {
            found.extend(fs::read_dir(&found[at]).unwrap().map(|entry| entry.unwrap().path()));
        }
        at += 1;
    }
    found
}

/// Who the threads of a process are: `Uid`, `Gid` and `Groups` of each.
fn threads(process: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let status = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    let lines = |status: String| {
        let wanted = status.lines().filter(|line| ["Uid:", "Gid:", "Groups:"].iter().any(|key| line.starts_with(key)));
        wanted.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
    };
    status.map(lines).collect()
}

#[test]
fn root_becomes_the_user_once_it_has_its_ports() {
    if !is_root() {
        return eprintln!("skipped: only root can become somebody else");
    }
    let sink = Sink::start(Ipv4Addr::new(127, 0, 0, 2));
    let process = std::process::id().to_be_bytes();
    // A port that only root may have, at an address of this process's own.
    let smtp = SocketAddr::from((Ipv4Addr::new(127, 9, process[2], process[3]), 25));
    let mut node = prepare_node(&format!("user = \"{USER}\""), &smtp.to_string(), &sink);
    // As after a start as root without the key.
    fs::create_dir_all(node.path("state/spool/aside")).unwrap();
    fs::write(node.path("state/spool/aside/x"), "x").unwrap();
    fs::write(node.path("outside"), "x").unwrap();
    fs::write(node.path("state/not-ours"), "x").unwrap();
    node.start();
    send(smtp);
    support::wait_until("delivered", Duration::from_secs(10), || sink.all().len() == 1);
    let threads = threads(node.process_id());
    let nobody = format!("Uid: {0} {0} {0} {0}, Gid: {0} {0} {0} {0}, Groups: {0}", NOBODY);
    assert!(threads.len() > 2 && threads.iter().all(|thread| *thread == nobody), "{threads:?}");
    for path in all(&node.path("state")) {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let ours = !path.ends_with("not-ours");
        assert_eq!(metadata.uid(), if ours { NOBODY } else { 0 }, "{}", path.display());
        assert!(!ours || metadata.mode() & 0o077 == 0, "{} {:o}", path.display(), metadata.mode());
    }
    assert_eq!(fs::metadata(node.path("outside")).unwrap().uid(), 0);
    // The admin side works, and so does a reload; a port that only root may have is too late now.
    assert!(node.run(&["status"]).status.success());
    let other = format!("127.9.{}.{}:26", process[2], process[3]);
    configure(&node, &format!("user = \"{USER}\""), &other, &sink);
    let (code, told) = checked(&node);
    assert!(code == Some(0) && told.contains(&other) && told.contains("a reload cannot open"), "{told}");
    let reload = node.run(&["reload"]);
    let told = String::from_utf8_lossy(&reload.stdout).into_owned();
    assert!(!reload.status.success() && told.contains("CAP_NET_BIND_SERVICE"), "{told}");
    send(smtp);
    node.stop();
    // Again, on what it left behind.
    configure(&node, &format!("user = \"{USER}\""), &smtp.to_string(), &sink);
    node.start();
    send(smtp);
    assert!(!node.log().contains("runs as root"), "{}", node.log());
}

#[test]
fn root_stays_root_with_a_warning_and_a_wrong_user_is_told() {
    if !is_root() {
        return eprintln!("skipped: only root can become somebody else");
    }
    let sink = Sink::start(Ipv4Addr::new(127, 0, 0, 2));
    let mut plain = prepare_node("", "{smtp}", &sink);
    plain.start();
    plain.logged(&["fingerpost runs as root: write [server] user"]);
    for (user, told) in [("fingerpost-nobody-has-this", "there is no user"), ("root", "is root")] {
        let mut node = prepare_node(&format!("user = \"{user}\""), "{smtp}", &sink);
        node.launch();
        assert_eq!(node.ended(Duration::from_secs(20)), Some(2), "{}", node.log());
        assert!(node.log().contains(told), "{}", node.log());
        assert!(!node.path("state").exists());
    }
}

#[test]
fn a_state_folder_of_somebody_else_is_told() {
    if !is_root() {
        return eprintln!("skipped: only root can give a folder away");
    }
    let sink = Sink::start(Ipv4Addr::new(127, 0, 0, 2));
    let node = prepare_node("", "{smtp}", &sink);
    fs::create_dir(node.path("state")).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", "nogroup", "--clear-groups", support::program(), "run"]);
    let Ok(output) = command.arg("--config").arg(node.path("fingerpost.toml")).output() else {
        return eprintln!("skipped: no setpriv");
    };
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if told.contains("Permission denied") && !told.contains("state") {
        return eprintln!("skipped: {USER} may not run the program where it was built");
    }
    assert!(!output.status.success() && told.contains("chown -R"), "{told}");
}

#[test]
fn no_umask_lets_others_read_and_no_link_is_followed() {
    let sink = Sink::start(Ipv4Addr::new(127, 0, 0, 2));
    let mut node = prepare_node("", "{smtp}", &sink);
    node.start_with_umask("000");
    send(node.smtp);
    support::wait_until("delivered", Duration::from_secs(10), || sink.all().len() == 1);
    node.stop();
    let open = |node: &TestNode| -> Vec<String> {
        let wide = |path: &PathBuf| fs::metadata(path).unwrap().mode() & 0o077 != 0;
        all(&node.path("state")).iter().filter(|path| wide(path)).map(|path| path.display().to_string()).collect()
    };
    assert_eq!(open(&node), [""; 0]);

    for path in all(&node.path("state")) {
        fs::set_permissions(&path, Permissions::from_mode(if path.is_dir() { 0o755 } else { 0o644 })).unwrap();
    }
    node.start();
    let log = node.logged(&["their rights were taken away"]);
    assert_eq!(log.matches("their rights were taken away").count(), 1);
    assert_eq!(open(&node), [""; 0]);
    node.stop();

    // Behind a link that leads nowhere there would be a new, empty spool.
    fs::rename(node.path("state/spool"), node.path("elsewhere")).unwrap();
    for to in ["nowhere", "elsewhere"] {
        symlink(node.path(to), node.path("state/spool")).unwrap();
        node.launch();
        assert_eq!(node.ended(Duration::from_secs(20)), Some(2), "{}", node.log());
        assert!(node.log().contains("state/spool is a link to"), "{}", node.log());
        assert!(!node.path("nowhere").exists());
        fs::remove_file(node.path("state/spool")).unwrap();
    }
    // state_dir itself may be one.
    fs::rename(node.path("elsewhere"), node.path("state/spool")).unwrap();
    fs::rename(node.path("state"), node.path("moved")).unwrap();
    symlink(node.path("moved"), node.path("state")).unwrap();
    node.start();
    send(node.smtp);
}

/// All files and folders with what a check must not change.
fn as_they_are(node: &TestNode) -> Vec<(PathBuf, u32, u32)> {
    let mut found: Vec<_> = all(node.folder())
        .into_iter()
        .map(|path| {
            let metadata = fs::symlink_metadata(&path).unwrap();
            (path, metadata.uid(), metadata.mode())
        })
        .collect();
    found.sort();
    found
}

/// What `check` says, which changes nothing, and how it ends.
fn checked(node: &TestNode) -> (Option<i32>, String) {
    let before = as_they_are(node);
    let ran = node.run(&["check"]);
    assert_eq!(as_they_are(node), before, "a check changes nothing");
    (ran.status.code(), String::from_utf8_lossy(&ran.stdout).into_owned())
}

/// `check` fails with these words, and the start is refused with them.
fn refused(node: &mut TestNode, words: &[&str]) {
    let (code, told) = checked(node);
    assert!(code == Some(1) && words.iter().all(|words| told.contains(words)), "{words:?} not in: {told}");
    node.launch();
    assert_eq!(node.ended(Duration::from_secs(20)), Some(2), "{}", node.log());
    let log = node.log();
    assert!(words.iter().all(|words| log.contains(words)), "{words:?} not in: {log}");
}

#[test]
fn check_refuses_what_the_start_refuses() {
    if !is_root() {
        return eprintln!("skipped: only root can become somebody else");
    }
    let sink = Sink::start(Ipv4Addr::new(127, 0, 0, 2));
    let user = format!("user = \"{USER}\"");
    let mut node = prepare_node(&user, "{smtp}", &sink);
    let (code, told) = checked(&node);
    assert!(code == Some(0) && !told.contains("not checked") && !node.path("state").exists(), "{told}");

    for (wrong, words) in [("fingerpost-nobody-has-this", "there is no user"), ("root", "is root")] {
        configure(&node, &format!("user = \"{wrong}\""), "{smtp}", &sink);
        refused(&mut node, &["[server] user", words]);
    }
    for key in ["metrics_bind", "bind "] {
        configure(&node, &user, "{smtp}", &sink);
        let text = fs::read_to_string(node.path("fingerpost.toml")).unwrap();
        let was = text.lines().find(|line| line.starts_with(key)).unwrap();
        node.write("fingerpost.toml", &text.replace(was, &format!("{key} = \"127.0.0.1:26\"")));
        refused(&mut node, &["[admin] ", "127.0.0.1:26", "choose a port"]);
    }
    configure(&node, &user, "{smtp}", &sink);

    // Files that only root can read, and a folder that only root can pass.
    let key = "0".repeat(64);
    node.write("loop.key", &key);
    fs::set_permissions(node.path("loop.key"), Permissions::from_mode(0o600)).unwrap();
    let text = fs::read_to_string(node.path("fingerpost.toml")).unwrap();
    node.write("fingerpost.toml", &format!("{text}\n[loop_detection]\nkey_files = [\"{{folder}}/loop.key\"]\n"));
    refused(&mut node, &["[loop_detection] key_files", "loop.key", "cannot read"]);
    node.write("fingerpost.toml", &text);
    fs::set_permissions(node.path("people.csv"), Permissions::from_mode(0o600)).unwrap();
    refused(&mut node, &["path of directory people", "people.csv", "cannot read"]);
    fs::set_permissions(node.path("people.csv"), Permissions::from_mode(0o644)).unwrap();

    node.write("token", "0123456789abcdef0123456789abcdef");
    fs::set_permissions(node.path("token"), Permissions::from_mode(0o600)).unwrap();
    node.write("fingerpost.toml", &text.replace("[admin]", "[admin]\ntoken_file = \"{folder}/token\""));
    refused(&mut node, &["[admin] token_file", "cannot read"]);
    fs::create_dir(node.path("more")).unwrap();
    fs::set_permissions(node.path("more"), Permissions::from_mode(0o711)).unwrap();
    node.write("fingerpost.toml", &text.replace("[server]", "[server]\ninclude = [\"more/*.toml\"]"));
    let (code, told) = checked(&node);
    assert!(code == Some(0) && told.contains("/more: ") && told.contains("every reload fails"), "{told}");
    node.write("fingerpost.toml", &text);

    // Links, and what cannot be given away.
    for (link, to) in [("state/spool", "elsewhere"), ("state/somebody's", "nowhere"), ("state/admin.token.new", "x")] {
        fs::create_dir_all(node.path("state")).unwrap();
        let _ = fs::remove_dir_all(node.path(link));
        symlink(node.path(to), node.path(link)).unwrap();
        refused(&mut node, &[link, "is a link to"]);
        fs::remove_file(node.path(link)).unwrap();
    }
    fs::rename(node.path("state"), node.path("kept")).unwrap();
    symlink(node.path("nowhere"), node.path("state")).unwrap();
    refused(&mut node, &["is a link that leads nowhere"]);
    fs::remove_file(node.path("state")).unwrap();
    fs::write(node.path("state"), "").unwrap();
    refused(&mut node, &["is no folder"]);
    fs::remove_file(node.path("state")).unwrap();
    fs::rename(node.path("kept"), node.path("state")).unwrap();
    fs::create_dir_all(node.path("state/keys")).unwrap();
    node.write("state/keys/loop.key", &key);
    fs::set_permissions(node.path("state/keys/loop.key"), Permissions::from_mode(0o600)).unwrap();
    node.write("fingerpost.toml", &format!("{text}\n[loop_detection]\nkey_files = [\"keys/loop.key\"]\n"));
    refused(&mut node, &["state/keys/loop.key", "belongs to user 0", "chown -R"]);
    node.write("fingerpost.toml", &text);
    fs::write(node.path("state/admin.token"), "x").unwrap();
    fs::hard_link(node.path("state/admin.token"), node.path("other-name")).unwrap();
    refused(&mut node, &["state/admin.token", "hard links"]);
    fs::remove_file(node.path("other-name")).unwrap();
    fs::remove_file(node.path("state/admin.token")).unwrap();

    // It starts with such a configuration, and could not read it again.
    fs::set_permissions(node.path("fingerpost.toml"), Permissions::from_mode(0o600)).unwrap();
    let (code, told) = checked(&node);
    let words = ["the configuration", "fingerpost.toml", "every reload fails"];
    assert!(code == Some(0) && words.iter().all(|words| told.contains(words)), "{told}");
    node.start();
    node.logged(&words);
    node.stop();
    fs::set_permissions(node.folder(), Permissions::from_mode(0o700)).unwrap();
    refused(&mut node, &["people.csv", "cannot read"]);
}

/// What `check` says to this user; `None`: it cannot be run so here.
fn checked_as(user: &str, node: &TestNode) -> Option<(Option<i32>, String)> {
    let program = node.path("program");
    if !program.exists() {
        support::copied_program(node.folder());
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", "nogroup", "--clear-groups"]).arg(program);
    let before = as_they_are(node);
    command.args(["check", "--config"]).arg(node.path("fingerpost.toml"));
    let ran = command.output().ok()?;
    assert_eq!(as_they_are(node), before, "a check changes nothing");
    Some((ran.status.code(), String::from_utf8_lossy(&ran.stdout).into_owned()))
}

#[test]
fn check_says_what_it_cannot_see() {
    if !is_root() {
        return eprintln!("skipped: only root can be several users");
    }
    let sink = Sink::start(Ipv4Addr::new(127, 0, 0, 2));
    let node = prepare_node("", "{smtp}", &sink);
    // A folder of root's: who checks could not serve.
    fs::create_dir(node.path("state")).unwrap();
    fs::set_permissions(node.path("state"), Permissions::from_mode(0o755)).unwrap();
    let Some((code, told)) = checked_as(USER, &node) else { return eprintln!("skipped: no setpriv") };
    assert!(code == Some(1) && told.contains("belongs to user 0") && told.contains("chown -R"), "{told}");
    // Another's: the server's, who is not who checks.
    std::os::unix::fs::chown(node.path("state"), Some(1), Some(1)).unwrap();
    let (code, told) = checked_as(USER, &node).unwrap();
    assert!(code == Some(0) && told.contains("not checked") && told.contains("as root"), "{told}");
    // His own: all is seen.
    std::os::unix::fs::chown(node.path("state"), Some(NOBODY), None).unwrap();
    let (code, told) = checked_as(USER, &node).unwrap();
    assert!(code == Some(0) && !told.contains("not checked"), "{told}");
    symlink("/nowhere", node.path("state/spool")).unwrap();
    let (code, told) = checked_as(USER, &node).unwrap();
    assert!(code == Some(1) && told.contains("is a link to"), "{told}");
    // With the key it is known who serves; who checks is somebody else.
    configure(&node, &format!("user = \"{USER}\""), "{smtp}", &sink);
    fs::set_permissions(node.path("state"), Permissions::from_mode(0o700)).unwrap();
    let (code, told) = checked_as("daemon", &node).unwrap();
    assert!(code == Some(0) && told.contains("not checked") && told.contains("as root"), "{told}");
    assert_eq!(checked_as(USER, &node).unwrap().0, Some(1));
}
