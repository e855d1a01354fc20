//! A configuration as written: reads the main file, the files that it includes, and every table; reports all faults of
//! form. `check` makes a [`super::Config`] of it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::parts::{self, Parts};
use super::reader::{Context, Reader};
use super::server::WrittenReports;
use super::source::{Item, Location, Places, Problem, Source};
use super::{
    Admin, Cluster, DirectoryConfig, LoopDetection, ReceiveConnector, SendConnector, Server, Trace, accepted_domain,
    directory, include, receive_connector, send_connector, server,
};
use crate::routing::accepted_domain::AcceptedDomain;

/// All tables of all files.
#[derive(Debug)]
pub(super) struct ConfigTables {
    pub(super) server: Item<Server>,
    pub(super) admin: Item<Admin>,
    pub(super) receive_connectors: Vec<Item<ReceiveConnector>>,
    pub(super) accepted_domains: Vec<Item<AcceptedDomain>>,
    pub(super) directories: Vec<Item<DirectoryConfig>>,
    pub(super) send_connectors: Vec<Item<SendConnector>>,
    pub(super) reports: Item<WrittenReports>,
    pub(super) loops: LoopDetection,
    pub(super) spool: (u64, Option<u64>),
    pub(super) trace: Trace,
    pub(super) cluster: Option<Cluster>,
    /// The names of tables that were written, even malformed ones.
    pub(super) names: HashSet<String>,
    /// Warnings from reading.
    pub(super) warnings: Vec<String>,
    pub(super) main: Location,
    /// See [`super::Config::files`].
    pub(super) files: Vec<PathBuf>,
    /// See [`super::Config::hash`].
    pub(super) hash: String,
}

/// Reads the main file, or takes `text` as its content, and everything that it includes. Faults of form are added to
/// the context.
///
/// # Errors
/// All faults so far, if a file cannot be read or is not TOML: its content is unknown, so references to it cannot be
/// checked.
pub(super) fn read(path: &Path, text: Option<&str>, context: Context) -> Result<(ConfigTables, Context), Broken> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut gathering = Gathering::new(context);
    let content = text.map_or_else(|| std::fs::read(&path), |text| Ok(text.as_bytes().to_vec()));
    let Some(main) = gathering.source(path, content) else { return Err(gathering.broken()) };
    let divided = gathering.domains(&main);
    let text = divided.as_deref().unwrap_or(&main.text);
    let Some(tables) = gathering.parse(&main, text) else { return Err(gathering.broken()) };
    let (server, patterns) = gathering.server(&main, tables.get_ref());
    let state_dir = server.used.state_dir.clone();
    gathering.tables(&main, tables.get_ref(), &state_dir);
    let found = include::find(main.folder(), &patterns);
    for (at, message) in found.faults {
        gathering.context.problems.add(server.places.at(&format!("include[{at}]")), message);
    }
    for (at, message) in found.warnings {
        gathering.warnings.push(format!("{}: {message}", server.places.at(&format!("include[{at}]"))));
    }
    for path in found.files {
        let content = std::fs::read(&path);
        let Some(source) = gathering.source(path, content) else { continue };
        let divided = gathering.domains(&source);
        let Some(tables) = gathering.parse(&source, divided.as_deref().unwrap_or(&source.text)) else { continue };
        gathering.tables(&source, tables.get_ref(), &state_dir);
    }
    gathering.files.extend(found.patterns);
    gathering.finish(server, &main)
}

/// What has been read so far.
struct Gathering {
    context: Context,
    /// Whether a file could not be read or is not TOML.
    broken: bool,
    digest: digest::Context,
    files: Vec<PathBuf>,
    warnings: Vec<String>,
    names: HashSet<String>,
    /// Where each table that may exist once was written.
    once: HashMap<&'static str, Location>,
    receive_connectors: Vec<Item<ReceiveConnector>>,
    accepted_domains: Vec<Item<AcceptedDomain>>,
    directories: Vec<Item<DirectoryConfig>>,
    send_connectors: Vec<Item<SendConnector>>,
    admin: Option<Item<Admin>>,
    reports: Option<Item<WrittenReports>>,
    loops: Option<LoopDetection>,
    spool: Option<(u64, Option<u64>)>,
    trace: Option<Trace>,
    cluster: Option<Cluster>,
}

impl Gathering {
    fn new(context: Context) -> Self {
        Self {
            context,
            broken: false,
            digest: digest::Context::new(&digest::SHA256),
            files: Vec::new(),
            warnings: Vec::new(),
            names: HashSet::new(),
            once: HashMap::new(),
            receive_connectors: Vec::new(),
            accepted_domains: Vec::new(),
            directories: Vec::new(),
            send_connectors: Vec::new(),
            admin: None,
            reports: None,
            loops: None,
            spool: None,
            trace: None,
            cluster: None,
        }
    }

    /// A file's content as text; `None`: it cannot be read, or is not UTF-8.
    fn source(&mut self, path: PathBuf, content: std::io::Result<Vec<u8>>) -> Option<Arc<Source>> {
        let index = self.files.len();
        self.files.push(path.clone());
        let text = content.map_err(|error| format!("cannot be read: {error}")).and_then(|bytes| {
            // Names and lengths are included: the same bytes elsewhere, where relative paths differ, get another
            // digest.
            let main = self.files.first().and_then(|main| main.parent()).unwrap_or(Path::new("/"));
            let name = path.strip_prefix(main).unwrap_or(&path).as_os_str().as_encoded_bytes();
            self.digest.update(&name.len().to_le_bytes());
            self.digest.update(name);
            self.digest.update(&bytes.len().to_le_bytes());
            self.digest.update(&bytes);
            String::from_utf8(bytes).map_err(|_| "is not UTF-8, as TOML has to be".to_owned())
        });
        let source = Arc::new(Source { index, path, text: text.clone().unwrap_or_default() });
        let Err(message) = text else { return Some(source) };
        self.broken = true;
        self.context.problems.add(Location::whole(&source), message);
        None
    }

    /// Reads the accepted domains of a long file in parts, and returns the rest of its text. `None`: it cannot be
    /// divided, and nothing has been read.
    fn domains(&mut self, source: &Arc<Source>) -> Option<String> {
        let Parts { rest, runs } = parts::divide(&source.text)?;
        // Faults are reported for the undivided file.
        if !DeTable::parse(&rest).is_ok_and(|tables| tables.get_ref().get("accepted_domain").is_none()) {
            return None;
        }
        let (domains, problems) = (self.accepted_domains.len(), self.context.problems.len());
        for run in runs {
            let part = source.text.get(run.clone()).and_then(|text| DeTable::parse(text).ok());
            let Some(part) = part.filter(|part| part.get_ref().len() == 1) else {
                self.accepted_domains.truncate(domains);
                self.context.problems.truncate(problems);
                return None;
            };
            let context = &mut self.context;
            let items = each(source, run.start, part.get_ref(), "accepted_domain", context, accepted_domain::read);
            self.accepted_domains.extend(items);
        }
        self.names.insert("accepted_domain".to_owned());
        Some(rest)
    }

    /// The tables of a file; `None`: it is not TOML.
    fn parse<'s>(&mut self, source: &Arc<Source>, text: &'s str) -> Option<Spanned<DeTable<'s>>> {
        let (tables, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let place = error.span().map_or(Location::whole(source), |span| Location::new(source, span.start));
            self.context.problems.add(&place, format!("not TOML: {}", error.message().replace('\n', "; ")));
        }
        self.broken |= !errors.is_empty();
        (errors.is_empty()).then_some(tables)
    }

    fn server(&mut self, main: &Arc<Source>, tables: &DeTable<'_>) -> (Item<Server>, Vec<String>) {
        let (used, places, patterns) = match single(tables, "server") {
            Some((place, table)) => {
                let places = Places::new(Location::new(main, place), table);
                let mut reader = Reader::new("server", Some(table), &places, &mut self.context);
                let (used, patterns) = server::server(&mut reader);
                (used, places, patterns)
            }
            None => {
                let places = Places::none(main);
                self.context.problems.add(places.at(""), "missing [server] with a hostname");
                // An empty table would report missing keys a second time.
                let mut unheard = Context::default();
                let (used, patterns) = server::server(&mut Reader::new("server", None, &places, &mut unheard));
                (used, places, patterns)
            }
        };
        (Item { used, places }, patterns)
    }

    fn tables(&mut self, source: &Arc<Source>, tables: &DeTable<'_>, state_dir: &Path) {
        let whole = Places::of_keys(Location::whole(source), tables);
        self.names.extend(tables.keys().map(|name| name.get_ref().to_string()));
        // Reports unknown tables.
        Reader::new("", Some(tables), &whole, &mut self.context);
        if source.index > 0 && whole.has("server") {
            self.context.problems.add(whole.at("server"), "[server] belongs to the main file, which includes this one");
        }
        let context = &mut self.context;
        let found =
            each(source, 0, tables, "receive_connector", context, |reader| Some(receive_connector::read(reader)));
        self.receive_connectors.extend(found);
        self.accepted_domains.extend(each(source, 0, tables, "accepted_domain", context, accepted_domain::read));
        self.directories.extend(each(source, 0, tables, "directory", context, |reader| Some(directory::read(reader))));
        let found = each(source, 0, tables, "send_connector", context, |reader| Some(send_connector::read(reader)));
        self.send_connectors.extend(found);
        if let Some(item) = self.single(source, tables, "admin", |reader| server::admin(reader, state_dir)) {
            self.admin = Some(item);
        }
        if let Some(item) = self.single(source, tables, "reports", server::reports) {
            self.reports = Some(item);
        }
        let loops = |reader: &mut Reader<'_>| server::loop_detection(reader, state_dir);
        if let Some(item) = self.single(source, tables, "loop_detection", loops) {
            self.loops = Some(item.used);
        }
        if let Some(item) = self.single(source, tables, "spool", server::spool) {
            self.spool = Some(item.used);
        }
        if let Some(item) = self.single(source, tables, "trace", server::trace) {
            self.trace = Some(item.used);
        }
        if let Some(item) = self.single(source, tables, "cluster", server::cluster) {
            self.cluster = Some(item.used);
        }
    }

    /// Reads a table that may exist once in all files together.
    fn single<T>(
        &mut self,
        source: &Arc<Source>,
        tables: &DeTable<'_>,
        name: &'static str,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> Option<Item<T>> {
        let Some((offset, table)) = single(tables, name) else {
            if let Some((key, _)) = tables.get_key_value(name) {
                let place = Location::new(source, key.span().start);
                self.context.problems.add(&place, format!("`{name}`: expected a table: [{name}]"));
            }
            return None;
        };
        let place = Location::new(source, offset);
        if let Some(earlier) = self.once.get(name) {
            self.context.problems.add(&place, format!("[{name}] is written at {earlier} already"));
            return None;
        }
        self.once.insert(name, place.clone());
        let places = Places::new(place, table);
        let used = read(&mut Reader::new(name, Some(table), &places, &mut self.context));
        Some(Item { used, places })
    }

    fn broken(self) -> Broken {
        (self.context.problems.into_sorted(), self.files)
    }

    fn finish(mut self, server: Item<Server>, main: &Arc<Source>) -> Result<(ConfigTables, Context), Broken> {
        if self.broken {
            return Err(self.broken());
        }
        let none = Places::none(main);
        let state_dir = server.used.state_dir.clone();
        let context = &mut self.context;
        // Reading an absent table gives the defaults.
        let admin = self.admin.unwrap_or_else(|| {
            let used = server::admin(&mut Reader::new("admin", None, &none, context), &state_dir);
            Item { used, places: Places::none(main) }
        });
        let mut unwritten = Reader::new("loop_detection", None, &none, context);
        let loops = self.loops.unwrap_or_else(|| server::loop_detection(&mut unwritten, &state_dir));
        let reports = Item { used: WrittenReports::default(), places: Places::none(main) };
        let written = ConfigTables {
            admin,
            receive_connectors: self.receive_connectors,
            accepted_domains: self.accepted_domains,
            directories: self.directories,
            send_connectors: self.send_connectors,
            reports: self.reports.unwrap_or(reports),
            loops,
            spool: self.spool.unwrap_or((server::DEFAULT_MIN_FREE, None)),
            trace: self.trace.unwrap_or_default(),
            cluster: self.cluster,
            names: self.names,
            warnings: self.warnings,
            main: Location::whole(main),
            files: self.files,
            hash: hex(self.digest.finish().as_ref()),
            server,
        };
        Ok((written, self.context))
    }
}

/// Problems, and the files that may have to be changed.
pub(super) type Broken = (Vec<Problem>, Vec<PathBuf>);

/// The table of that name, and its offset.
fn single<'t>(tables: &'t DeTable<'t>, name: &str) -> Option<(usize, &'t DeTable<'t>)> {
    let value = tables.get(name)?;
    value.get_ref().as_table().map(|table| (value.span().start, table))
}

/// Reads every table of a name; the tables come from a part of the source that begins at this offset.
fn each<T>(
    source: &Arc<Source>,
    start: usize,
    tables: &DeTable<'_>,
    name: &'static str,
    context: &mut Context,
    read: impl Fn(&mut Reader<'_>) -> Option<T>,
) -> Vec<Item<T>> {
    let mut items = Vec::new();
    let Some((key, value)) = tables.get_key_value(name) else { return items };
    let array = value.get_ref().as_array().filter(|array| array.iter().all(|element| element.get_ref().is_table()));
    let Some(array) = array else {
        let place = Location::new(source, start + key.span().start);
        context.problems.add(&place, format!("`{name}`: expected a list of tables: [[{name}]], each time"));
        return items;
    };
    for element in array {
        let DeValue::Table(table) = element.get_ref() else { continue };
        let places = Places::in_part(Location::new(source, start + element.span().start), start, table);
        let used = read(&mut Reader::new(name, Some(table), &places, context));
        items.extend(used.map(|used| Item { used, places }));
    }
    items
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
