//! Both ends in one process, over a file in memory.

use super::*;
use std::os::unix::fs::FileExt;

/// The two ends, and their region.
pub(crate) fn pair() -> (HostEnd, GuestEnd, File) {
    // SAFETY: plain system call; the descriptor is owned by the File made of it.
    let fd = unsafe { libc::memfd_create(c"channel".as_ptr(), 0) };
    assert!(fd >= 0);
    // SAFETY: `fd` is fresh and owned by nobody else.
    let file: File = unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) };
    file.set_len(REGION as u64).unwrap();
    let mut host = HostEnd::new(Region::map(&file).unwrap());
    host.go(&plan(), b"second stage").unwrap();
    let guest = GuestEnd::new(Region::map(&file).unwrap()).unwrap();
    (host, guest, file)
}

fn plan() -> Plan {
    Plan {
        protocol: PROTOCOL,
        known: Vec::new(),
        select: vec!["hooks/*".into()],
        part: crate::protocol::Part::default(),
        done: vec![],
        machine: crate::protocol::Machine::Shared,
        probe_ms: 5000,
        detail: false,
        shuffle: None,
        apart: false,
    }
}

fn failed(bytes: usize) -> Message {
    Message::Failed { why: "x".repeat(bytes) }
}

#[test]
fn a_plan_and_messages_arrive_whole() {
    let (mut host, mut guest, _file) = pair();
    assert_eq!(guest.plan().unwrap(), plan());
    assert_eq!(host.receive().unwrap(), None);
    guest.send(&Message::Done { records: 7 }).unwrap();
    assert_eq!(host.receive().unwrap(), Some(Message::Done { records: 7 }));
    assert_eq!(host.receive().unwrap(), None);
}

#[test]
fn a_case_written_already_arrives_as_a_case() {
    let (mut host, mut guest, _file) = pair();
    let text = r#"{"name":"fire","phase":"load","end":"refused","errno":"EPERM","log":"a\nb"}"#;
    guest.send_case("hooks/a\"b", text.as_bytes()).unwrap();
    let expected = Message::Case { probe: "hooks/a\"b".into(), case: serde_json::from_str(text).unwrap() };
    assert_eq!(host.receive().unwrap(), Some(expected));
}

#[test]
fn the_second_stage_lies_where_the_first_looks_for_it() {
    let (host, _guest, file) = pair();
    let mut found = [0; 12];
    file.read_exact_at(&mut found, RING_OFFSET as u64).unwrap();
    assert_eq!(&found, b"second stage");
    assert_eq!(host.region.go().load(Ordering::Relaxed), 1);
    // SAFETY: the header lies in the mapping and nobody else writes it now.
    let header = unsafe { std::ptr::read(host.region.header()) };
    assert_eq!(header.guest_bytes, 12);
    assert_ne!(header.seed, [0; SEED_BYTES]);
}

#[test]
fn a_second_stage_that_does_not_fit_is_refused() {
    let (mut host, _guest, _file) = pair();
    assert!(matches!(host.go(&plan(), &[]), Err(ChannelError::Guest(0))));
    assert!(matches!(host.go(&plan(), &vec![0; RING_BYTES + 1]), Err(ChannelError::Guest(_))));
}

#[test]
fn a_guest_that_sets_the_harness_back_is_not_read_twice() {
    let (mut host, mut guest, _file) = pair();
    guest.send(&Message::Done { records: 7 }).unwrap();
    assert!(host.receive().unwrap().is_some());
    for tail in [0, u64::MAX - 3] {
        host.region.tail().store(tail, Ordering::Relaxed);
        assert_eq!(host.receive().unwrap(), None);
    }
}

#[test]
fn a_flood_ends() {
    let case = br#"{"name":"a","phase":"load","end":"done"}"#;
    let (mut host, mut guest, _file) = pair();
    let mut taken = 0;
    let error = loop {
        guest.send_case("a/b", case).unwrap();
        match host.receive() {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(taken, CASES_MAX);
    assert!(error.to_string().contains("more than a guest may send"), "{error}");
    // As many as there may be are no flood.
    let (mut host, mut guest, _file) = pair();
    host.cases = CASES_MAX - 1;
    guest.send_case("a/b", case).unwrap();
    guest.send(&Message::Start { probe: "a/c".into() }).unwrap();
    assert!(host.receive().unwrap().is_some() && host.receive().unwrap().is_some());
    let (mut host, mut guest, _file) = pair();
    (host.taken, host.messages) = (0, MESSAGES_MAX);
    guest.send(&Message::Done { records: 7 }).unwrap();
    assert!(host.receive().is_err());
    (host.taken, host.messages) = (STREAM_MAX + 1, 0);
    assert!(host.receive().is_err());
}

#[test]
fn the_ring_wraps() {
    let (mut host, mut guest, _file) = pair();
    for round in 0..40 {
        let message = failed(1_000_000 + round);
        guest.send(&message).unwrap();
        assert_eq!(host.receive().unwrap(), Some(message), "round {round}");
    }
}

#[test]
fn a_guest_that_nobody_listens_to_gives_up_and_what_it_said_stays() {
    let (mut host, mut guest, _file) = pair();
    guest.patience = Duration::from_millis(20);
    let fits = RING_BYTES / 1_000_000 - 1;
    for _ in 0..fits {
        guest.send(&failed(1_000_000)).unwrap();
    }
    assert!(matches!(guest.send(&failed(2_000_000)), Err(ChannelError::Stalled(_))));
    let said = std::iter::from_fn(|| host.receive().unwrap()).count();
    assert_eq!(said, fits);
}

#[test]
fn a_flipped_bit_is_found_and_placed() {
    let (mut host, mut guest, file) = pair();
    guest.send(&failed(10)).unwrap();
    guest.send(&failed(100)).unwrap();
    file.write_all_at(b"y", (RING_OFFSET + FRAME_HEAD + 120) as u64).unwrap();
    assert!(host.receive().unwrap().is_some());
    let error = host.receive().unwrap_err().to_string();
    assert!(error.contains("wrong checksum") || error.contains("no frame head"), "{error}");
}

#[test]
fn a_guest_that_lies_about_its_position_is_refused() {
    let (mut host, guest, _file) = pair();
    guest.region.head().store(u64::MAX, Ordering::Relaxed);
    assert!(matches!(host.receive(), Err(ChannelError::Corrupt { at: 0, .. })));
}

#[test]
fn a_message_beyond_the_limit_is_refused() {
    let (_host, mut guest, _file) = pair();
    assert!(matches!(guest.send(&failed(FRAME_MAX)), Err(ChannelError::TooLarge(_))));
}

#[test]
fn notes_are_there_until_they_are_forgotten() {
    let (host, mut guest, _file) = pair();
    guest.clear();
    let case = br#"c{"name":"load","phase":"load","end":"done"}"#;
    let line = [case.as_slice(), b"\n"].concat();
    assert!(
        guest.notes().write(&line) && guest.notes().write(b"nonsense\n") && guest.notes().write(b"c{\"na")
    );
    let noted = host.noted();
    assert_eq!(noted.iter().map(|case| case.name.as_str()).collect::<Vec<_>>(), ["load"]);
    assert_eq!(guest.noted(), [line.as_slice(), b"nonsense\nc{\"na"].concat());
    assert_eq!(host.noted().len(), 1, "to read them does not take them away");
    guest.forget_notes();
    assert!(guest.noted().is_empty() && host.noted().is_empty());
    assert!(guest.notes().write(&vec![b'x'; Notes::CAPACITY]) && !guest.notes().write(b"x"));
}

#[test]
fn a_length_of_notes_that_is_a_lie_is_cut() {
    let (host, mut guest, _file) = pair();
    guest.notes().set_length(u32::MAX);
    assert_eq!(guest.noted().len(), Notes::CAPACITY);
    assert!(host.noted().is_empty());
    guest.notes().set_length(u32::MAX);
    assert!(!guest.notes().write(b"x"));
}

#[test]
fn breadcrumbs_are_read_back() {
    let (host, mut guest, _file) = pair();
    guest.crumb().set("canonical: load");
    assert_eq!(host.crumb(), "canonical: load");
    guest.clear();
    assert_eq!(host.crumb(), "");
}
