//! System V messages, shared memory and semaphores. What is made is removed when the act is dropped.

use super::{Act, Arm, act};
use crate::errno::Errno;

const MODE: i32 = libc::IPC_CREAT | 0o600;

#[repr(C)]
struct Message {
    kind: libc::c_long,
    text: [u8; 8],
}

/// A message queue.
struct Queue(i32);

impl Queue {
    fn new() -> Result<Self, Errno> {
        // SAFETY: takes two numbers.
        Errno::result(unsafe { libc::msgget(libc::IPC_PRIVATE, MODE) }).map(Self)
    }

    fn send(&self) -> Result<(), Errno> {
        let message = Message { kind: 1, text: [0; 8] };
        // SAFETY: the message is a type and 8 bytes, as the length says.
        let sent = unsafe { libc::msgsnd(self.0, (&raw const message).cast(), 8, libc::IPC_NOWAIT) };
        Errno::result(sent).map(drop)
    }

    fn receive(&self) -> Result<(), Errno> {
        let mut message = Message { kind: 0, text: [0; 8] };
        // SAFETY: the buffer has room for a type and 8 bytes, as the length says.
        let length = unsafe { libc::msgrcv(self.0, (&raw mut message).cast(), 8, 0, libc::IPC_NOWAIT) };
        Errno::result(length).map(drop)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: IPC_RMID ignores the pointer.
        unsafe { libc::msgctl(self.0, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

/// `msgget(2)` of a new queue.
///
/// # Errors
/// None.
pub fn msgget() -> Result<Act, Errno> {
    act(|arm: Arm| arm.during(Queue::new))
}

/// `msgsnd(2)`.
///
/// # Errors
/// The errno of making the queue.
pub fn msgsnd() -> Result<Act, Errno> {
    let queue = Queue::new()?;
    act(move |arm: Arm| {
        arm.during(|| queue.send())?;
        queue.receive()
    })
}

/// `msgrcv(2)`. A message that may not be received is passed over, so a denial looks like an empty queue.
///
/// # Errors
/// The errno of making the queue.
pub fn msgrcv() -> Result<Act, Errno> {
    let queue = Queue::new()?;
    act(move |arm: Arm| {
        queue.send()?;
        let result = arm.during(|| queue.receive());
        if result.is_err() {
            queue.receive()?;
        }
        result
    })
}

/// A shared memory segment.
struct Segment(i32);

impl Segment {
    fn attach(&self) -> Result<*mut libc::c_void, Errno> {
        // SAFETY: attaches wherever the kernel likes.
        let address = unsafe { libc::shmat(self.0, std::ptr::null(), libc::SHM_RDONLY) };
        if address.addr() == usize::MAX { Err(Errno::last()) } else { Ok(address) }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: IPC_RMID ignores the pointer.
        unsafe { libc::shmctl(self.0, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

/// `shmat(2)`.
///
/// # Errors
/// The errno of making the segment.
pub fn shmat() -> Result<Act, Errno> {
    // SAFETY: takes three numbers.
    let segment = Segment(Errno::result(unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, MODE) })?);
    act(move |arm: Arm| {
        let address = arm.during(|| segment.attach())?;
        // SAFETY: attached just now, and known to nobody else.
        Errno::result(unsafe { libc::shmdt(address) })
    })
}

/// A set of one semaphore.
struct Set(i32);

impl Set {
    fn raise(&self) -> Result<(), Errno> {
        let mut raise = libc::sembuf { sem_num: 0, sem_op: 1, sem_flg: 0 };
        // SAFETY: one operation, as the count says.
        Errno::result(unsafe { libc::semop(self.0, &raw mut raise, 1) }).map(drop)
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        // SAFETY: IPC_RMID takes no fourth argument.
        unsafe { libc::semctl(self.0, 0, libc::IPC_RMID) };
    }
}

/// `semop(2)` that raises a semaphore. The kernel checks both that a set may be changed at all and the operation.
///
/// # Errors
/// The errno of making the set.
pub fn semop() -> Result<Act, Errno> {
    // SAFETY: takes three numbers.
    let set = Set(Errno::result(unsafe { libc::semget(libc::IPC_PRIVATE, 1, MODE) })?);
    act(move |arm: Arm| arm.during(|| set.raise()))
}
