//! What QEMU and its launcher say for themselves: their standard error, taken from a socket.
//!
//! Of a file or a pipe anybody below the launcher could make a new opening through `/proc`, and virtme-ng does: it gives
//! its guest a console that writes to standard error, unless that cannot be opened (virtme-ng 1.42 virtme/commands/run.py,
//! `can_access_file`), which a socket cannot. Through such a console a guest could fill the host's disk, overwrite what
//! QEMU says, and say in QEMU's place that somebody has ended it.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// The most that is kept, in bytes from the end.
const KEPT: usize = 64 << 10;
/// The most that is taken at once, so that who never stops talking holds nobody up. More than a socket holds (212 KB unless
/// the system says otherwise): of those who have gone, one look takes all.
const AT_ONCE: usize = 4 << 20;

/// This end of the socket, and what came.
pub(super) struct Said {
    socket: UnixStream,
    end: VecDeque<u8>,
    length: u64,
}

impl Said {
    /// A new one, and the end that is to be a child's standard error.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        Ok((Self { socket, end: VecDeque::new(), length: 0 }, theirs.into()))
    }

    /// Takes what is there. To be called now and then, for who has filled the socket waits.
    fn take(&mut self) {
        let mut buffer = [0; 16 << 10];
        let mut taken = 0;
        while taken < AT_ONCE
            && let Ok(count @ 1..) = self.socket.read(&mut buffer)
        {
            taken += count;
            self.end.extend(&buffer[..count]);
            self.end.drain(..self.end.len().saturating_sub(KEPT));
        }
        self.length += taken as u64;
    }

    /// How much has been said, in bytes.
    pub(super) fn length(&mut self) -> u64 {
        self.take();
        self.length
    }

    /// The end of what has been said.
    pub(super) fn text(&mut self) -> String {
        self.take();
        String::from_utf8_lossy(self.end.make_contiguous()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_end_of_what_was_said_is_kept_and_all_of_it_counted() {
        let (mut said, theirs) = Said::new().unwrap();
        let mut theirs = UnixStream::from(theirs);
        let mut length = 0;
        for round in 0..20 {
            let line = format!("{round}: {}\n", "x".repeat(10_000));
            theirs.write_all(line.as_bytes()).unwrap();
            length += line.len() as u64;
            assert_eq!(said.length(), length);
        }
        drop(theirs);
        let text = said.text();
        assert!(text.len() == KEPT && text.contains("\n19: x"), "{} bytes", text.len());
    }
}
