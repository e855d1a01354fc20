//! A reader that stalls, a reader that returns, and a full disk.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// Passes on each write after a permit: how many octets it accepts, or why none.
struct Gate {
    permits: Receiver<io::Result<usize>>,
    written: Sender<Vec<u8>>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let takes = self.permits.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
        self.written.send(bytes[..takes].to_vec()).map_err(io::Error::other)?;
        Ok(takes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Gated {
    lines: Lines,
    flushed: Flushed,
    permit: Sender<io::Result<usize>>,
    read: Receiver<Vec<u8>>,
    lost: IntCounter,
}

fn gate() -> Gated {
    let ((permit, permits), (written, read)) = (channel(), channel());
    let lost = IntCounter::new("lost", "lost").unwrap();
    let describe = Box::new(|lost: Lost| format!("lost {} {}\n", lost.lines, lost.warnings));
    let (lines, flushed) = Lines::start(Gate { permits, written }, lost.clone(), describe).unwrap();
    Gated { lines, flushed, permit, read, lost }
}

impl Gated {
    /// Puts a first line and waits until the thread is writing it.
    fn stall(&self) {
        self.lines.put(b"first\n", Room::Alert);
        while !self.lines.0.waiting.lock().writing {
            thread::yield_now();
        }
    }

    /// Fills the room with lines of 1 KiB, and `more` beyond.
    fn flood(&self, room: Room, more: usize) {
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        (0..room.size() / line.len() + more).for_each(|_| self.lines.put(&line, room));
    }

    /// The content of the next write.
    fn read(&self) -> String {
        String::from_utf8(self.read.recv().unwrap()).unwrap()
    }
}

#[test]
fn lines_come_out_whole_in_their_order_and_none_is_left() {
    let Gated { lines, flushed, permit, read, lost } = gate();
    drop(permit); // every write may go on
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let lines = lines.clone();
            thread::spawn(move || {
                for number in 0..500 {
                    let room = if number % 100 == 0 { Room::Warning } else { Room::Info };
                    lines.put(format!("{writer} {number}\n").as_bytes(), room);
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    drop(flushed);
    let text = String::from_utf8(read.try_iter().flatten().collect()).unwrap();
    for writer in 0..4 {
        let own: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&format!("{writer} "))).collect();
        assert_eq!(own, (0..500).map(|number| number.to_string()).collect::<Vec<_>>());
    }
    assert_eq!(lost.get(), 0);
}

#[test]
fn a_reader_that_stalls_stops_nobody_and_costs_no_warning() {
    let gated = gate();
    gated.stall();
    gated.flood(Room::Info, 10); // would never come back if it waited
    gated.lines.put(b"a warning\n", Room::Warning);
    gated.flood(Room::Info, 0);
    gated.lines.put(b"an alert\n", Room::Alert);
    let lost = 10 + u64::try_from(Room::Info.size() / 1024).unwrap();
    assert_eq!(gated.lost.get(), lost);
    assert!(gated.lines.0.waiting.lock().lines.len() <= Room::Info.size() + 100);
    drop(gated.permit); // the reader is back
    let text: String =
        [gated.read.recv().unwrap(), gated.read.recv().unwrap()].map(|t| String::from_utf8(t).unwrap()).concat();
    let of_ours: Vec<_> = text.lines().filter(|line| !line.starts_with('x')).collect();
    assert_eq!(of_ours, ["first", "a warning", "an alert", &format!("lost {lost} 0")]);
    assert_eq!(text.lines().count(), Room::Info.size() / 1024 + 4);
    gated.lines.put(b"later\n", Room::Warning);
    assert_eq!(gated.read.recv().unwrap(), b"later\n"); // it was told once
}

#[test]
fn a_flood_of_warnings_costs_neither_an_alert_nor_other_lines() {
    let gated = gate();
    gated.stall();
    gated.flood(Room::Warning, 3);
    gated.lines.put(b"an alert\n", Room::Alert);
    gated.lines.put(b"a line\n", Room::Info);
    assert_eq!(gated.lost.get(), 3);
    drop(gated.permit);
    assert_eq!(gated.read.recv().unwrap(), b"first\n");
    let text = String::from_utf8(gated.read.recv().unwrap()).unwrap();
    assert!(text.ends_with("x\nan alert\na line\nlost 3 3\n"));
}

#[test]
fn the_end_does_not_wait_for_a_reader_that_has_stalled() {
    let gated = gate();
    gated.stall();
    gated.lines.put(b"not read in time\n", Room::Info);
    assert!(!gated.lines.keeps_up());
    drop(gated.flushed); // would never come back if it waited
    drop(gated.permit);
    assert_eq!(gated.read.recv().unwrap(), b"first\n");
    assert_eq!(gated.read.recv().unwrap(), b"not read in time\n");
}

#[test]
fn what_cannot_be_written_is_counted_and_told_when_it_can_be_again() {
    let gated = gate();
    gated.stall();
    gated.lines.put(b"second\nthird\n", Room::Info);
    gated.permit.send(Ok(2)).unwrap();
    gated.permit.send(Err(io::ErrorKind::Interrupted.into())).unwrap();
    gated.permit.send(Err(io::ErrorKind::WouldBlock.into())).unwrap();
    gated.permit.send(Ok(4)).unwrap();
    assert_eq!((gated.read(), gated.read()), ("fi".to_owned(), "rst\n".to_owned()));
    gated.permit.send(Ok(3)).unwrap();
    gated.permit.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
    assert_eq!(gated.read(), "sec");
    gated.lines.flush(Duration::from_secs(60));
    assert_eq!(gated.lost.get(), 2);
    gated.lines.put(b"again\n", Room::Warning);
    gated.permit.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
    gated.lines.flush(Duration::from_secs(60));
    gated.permit.send(Ok(usize::MAX)).unwrap();
    gated.lines.put(b"at last\n", Room::Warning);
    assert_eq!(gated.read(), "\nat last\nlost 3 0\n");
    assert_eq!(gated.lost.get(), 3);
}

#[test]
fn a_line_longer_than_its_room_goes_alone() {
    let gated = gate();
    gated.stall();
    gated.lines.put(&vec![b'x'; Room::Alert.size() + 1], Room::Alert);
    gated.lines.put(b"no room\n", Room::Alert);
    assert_eq!(gated.lost.get(), 1);
    drop(gated.permit);
}

#[test]
fn rooms_go_by_level_and_alert() {
    struct Rooms(Mutex<Vec<Room>>);
    impl tracing::Subscriber for Rooms {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
            tracing::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            self.0.lock().push(Room::of(event.metadata()));
        }
        fn enter(&self, _: &tracing::Id) {}
        fn exit(&self, _: &tracing::Id) {}
    }
    let rooms = Arc::new(Rooms(Mutex::default()));
    tracing::subscriber::with_default(rooms.clone(), || {
        tracing::info!("x");
        tracing::warn!("x");
        tracing::error!("x");
        tracing::info!(alert = true, "x");
        tracing::debug!("x");
    });
    assert_eq!(*rooms.0.lock(), [Room::Info, Room::Warning, Room::Alert, Room::Alert, Room::Info]);
}
