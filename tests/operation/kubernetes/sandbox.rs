//! A pod without Kubernetes: its volumes in a folder, laid out as kubelet does it, and the containers' commands in a root of
//! their own (`sandbox.sh`), with the user, the rights and the mounts that the manifest gives them.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{program, project, within};
use tempfile::TempDir;

use super::{list, text};

/// A file of a volume, and its content.
pub(super) type Files<'a> = [(&'a str, String)];

pub(super) struct Pod {
    name: String,
    /// Of the manifest: `spec.template.spec`.
    spec: Value,
    folder: TempDir,
    running: Option<Child>,
}

impl Pod {
    /// One with empty volumes.
    pub(super) fn new(name: &str, spec: &Value) -> Self {
        let folder = tempfile::Builder::new().prefix("fp-pod-").tempdir_in("/tmp").expect("/tmp is writable");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is ours");
        let pod = Self { name: name.to_owned(), spec: spec.clone(), folder, running: None };
        fs::create_dir(pod.path("root")).expect("it is new");
        for volume in list(&spec["volumes"]) {
            let folder = pod.path(text(&volume["name"]));
            fs::create_dir(&folder).expect("it is new");
            // As kubelet does it for `fsGroup`, where a pod may write.
            chown(&folder, None, Some(pod.id("fsGroup"))).expect("root may do that");
            fs::set_permissions(&folder, Permissions::from_mode(0o2777)).expect("it is ours");
        }
        pod
    }

    /// Fills a volume, or replaces all that is in it, as kubelet does it: a new folder, and a link that is swapped.
    pub(super) fn fill(&self, volume: &str, files: &Files<'_>) {
        let folder = self.path(volume);
        let before = fs::read_link(folder.join("..data")).ok();
        let number = before.as_ref().and_then(|name| name.to_str()?.strip_prefix("..v")?.parse().ok()).unwrap_or(0) + 1;
        let version = format!("..v{number}");
        fs::create_dir(folder.join(&version)).expect("it is new");
        for (name, content) in files {
            let path = folder.join(&version).join(name);
            fs::write(&path, content).expect("writable");
            chown(&path, None, Some(self.id("fsGroup"))).expect("root may do that");
            fs::set_permissions(&path, Permissions::from_mode(0o440)).expect("it is ours");
            let shown = folder.join(name);
            if !shown.is_symlink() {
                symlink(Path::new("..data").join(name), shown).expect("it is new");
            }
        }
        symlink(&version, folder.join("..data_tmp")).expect("it is new");
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("same folder");
        if let Some(before) = before {
            fs::remove_dir_all(folder.join(before)).expect("it is ours");
        }
    }

    /// Runs the init container to its end.
    pub(super) fn initialize(&self) -> Output {
        self.container(&self.spec["initContainers"][0]).output().expect("there is a shell")
    }

    /// Starts the container; its log is a file.
    pub(super) fn start(&mut self) {
        let log = File::create(self.path("log")).expect("writable");
        let mut command = self.container(&self.spec["containers"][0]);
        self.running = Some(command.stdout(Stdio::null()).stderr(log).spawn().expect("there is a shell"));
    }

    /// Runs a command in the running container, as `kubectl exec` and hooks do.
    pub(super) fn exec(&self, command: &[&str]) -> Output {
        let (user, group, files) = (self.id("runAsUser"), self.id("runAsGroup"), self.id("fsGroup"));
        let mut entered = Command::new("nsenter");
        entered.args(["--target", &self.id_of_process(), "--mount", "--root", "--", "/usr/bin/setpriv"]);
        entered.args([format!("--reuid={user}"), format!("--regid={group}"), format!("--groups={files}")]);
        entered.args(["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "/usr/bin/env", "-i"]);
        entered.args(["PATH=/program:/usr/bin", &format!("POD_NAME={}", self.name)]);
        entered.args(command).current_dir("/").stdin(Stdio::null()).output().expect("util-linux is installed")
    }

    pub(super) fn id_of_process(&self) -> String {
        self.running.as_ref().expect("it was started").id().to_string()
    }

    /// Its exit code once it has ended, within so long.
    pub(super) fn ended(&mut self, limit: Duration) -> Option<i32> {
        let running = self.running.as_mut().expect("it was started");
        let mut code = None;
        within(limit, || {
            code = running.try_wait().expect("it is ours");
            code.is_some()
        });
        code.and_then(|status| status.code())
    }

    pub(super) fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.id_of_process()]).status().expect("there is kill");
        assert!(sent.success());
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A number of the pod's `securityContext`.
    fn id(&self, name: &str) -> u32 {
        let id = self.spec["securityContext"][name].as_u64().expect("a number");
        id.try_into().expect("an id")
    }

    fn container(&self, container: &Value) -> Command {
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL");
        let volume = |mount: &Value| {
            let (folder, path) = (self.path(text(&mount["name"])), text(&mount["mountPath"]));
            format!("{}={path}={}", folder.display(), if mount["readOnly"] == true { "ro" } else { "rw" })
        };
        let volumes: Vec<_> = list(&container["volumeMounts"]).iter().map(volume).collect();
        let identity = format!("{}:{}:{}", self.id("runAsUser"), self.id("runAsGroup"), self.id("fsGroup"));
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh"]);
        command.arg(project().join("tests/operation/kubernetes/sandbox.sh")).arg(self.path("root")).arg(program());
        command.arg(identity).arg(volumes.join(" ")).arg("--").args(list(&container["command"]).iter().map(text));
        command.env("POD_NAME", &self.name).current_dir("/").stdin(Stdio::null());
        command
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the log of {} ---\n{}", self.name, self.log());
        }
    }
}
