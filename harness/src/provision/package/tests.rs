//! Packages that claim too much, or unpack to too much.

use super::*;
use crate::provision::deb::tests::{FILE, ar_of, tar_of, xz};

fn read(deb: &[u8]) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    members(deb, |member| {
        let size = io::copy(member.content, &mut io::sink())?;
        found.push((member.path, size));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// A long name of GNU's, of so many bytes, before a file.
fn long_name(length: usize) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(length as u64);
    header.set_cksum();
    let mut name = header.as_bytes().to_vec();
    name.extend(std::iter::repeat_n(b'n', length));
    name.resize(name.len().next_multiple_of(512), 0);
    name.extend(tar_of(&[(FILE, "short", b"x")]));
    name
}

#[test]
fn a_long_name_is_read_and_an_endless_one_refused() {
    let found = read(&ar_of("data.tar", &long_name(300))).unwrap();
    assert_eq!(found, [(PathBuf::from("n".repeat(300)), 1)]);
    let error = read(&ar_of("data.tar.xz", &xz(&long_name(64 << 20)))).unwrap_err();
    assert!(error.to_string().contains("more than 4096 bytes"), "{error}");
}

#[test]
fn what_a_head_claims_takes_no_memory() {
    for name in ["//", "/7", "#1/99999999", "x"] {
        let deb = format!("!<arch>\n{name:<48}{:<10}`\n", 9_999_999_999_u64);
        let error = read(deb.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("at byte 8"), "{error}");
    }
    assert!(read(b"!<arch>\nnonsense".repeat(9).as_slice()).unwrap_err().to_string().contains("at byte 8"));
}

/// The size of xz's dictionary is one byte of a block's head, with a checksum over that head.
#[test]
fn an_xz_header_that_asks_for_gigabytes_is_refused() {
    let mut packed = xz(b"some content");
    let head = 12..12 + (usize::from(packed[12]) + 1) * 4;
    let place = head.clone().find(|&at| packed[at..].starts_with(&[0x21, 1])).unwrap() + 2;
    packed[place] = 40; // 4 GiB - 1
    let sum = crc32fast::hash(&packed[head.start..head.end - 4]).to_le_bytes();
    packed[head.end - 4..head.end].copy_from_slice(&sum);
    let error = read(&ar_of("data.tar.xz", &packed)).unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
}

#[test]
fn a_zstd_window_of_gigabytes_is_refused() {
    // Magic, a frame's head without a size, and the exponent of the window: 2^(10 + 21).
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0];
    let error = read(&ar_of("data.tar.zst", &frame)).unwrap_err();
    assert!(error.to_string().contains("memory") || error.to_string().contains("window"), "{error}");
}

#[test]
fn what_unpacks_to_more_than_it_may_fails() {
    let mut text = String::new();
    let error = Limited::new(&b"12345"[..], 4).read_to_string(&mut text).unwrap_err();
    assert!(error.to_string().contains("more than 4 bytes"), "{error}");
    assert_eq!(Limited::new(&b"1234"[..], 4).read_to_string(&mut text).unwrap(), 4);
}
