//! System V messages, shared memory and semaphores. What is made is removed when the act is dropped.

use super::{Act, Arm, act};
use crate::errno::Errno;

const MODE: i32 = libc::IPC_CREAT | 0o600;
/// The first of the keys that recipes give to objects; 0 is no key.
pub const KEY: i32 = 0x0063_6f6e;

#[repr(C)]
struct Message {
    kind: libc::c_long,
    text: [u8; 8],
}

/// A message queue.
struct Queue(i32);

impl Queue {
    fn new() -> Result<Self, Errno> {
        Self::with_key(libc::IPC_PRIVATE)
    }

    /// Finds or makes one.
    fn with_key(key: i32) -> Result<Self, Errno> {
        // SAFETY: takes two numbers.
        Errno::result(unsafe { libc::msgget(key, MODE) }).map(Self)
    }

    fn stat(&self) -> Result<(), Errno> {
        // SAFETY: all-zero is a valid msqid_ds, plain data.
        let mut into = unsafe { std::mem::zeroed() };
        // SAFETY: the command fills in one structure.
        Errno::result(unsafe { libc::msgctl(self.0, libc::IPC_STAT, &raw mut into) }).map(drop)
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

/// `msgget(2)` of a queue that is there, by its key.
///
/// # Errors
/// The errno of making the queue.
pub fn find_queue() -> Result<Act, Errno> {
    let queue = Queue::with_key(KEY)?;
    act(move |arm: Arm| {
        let _kept = &queue;
        // SAFETY: takes two numbers.
        arm.during(|| Errno::result(unsafe { libc::msgget(KEY, 0) }))
    })
}

/// `msgctl(2)`, asking for a queue's state.
///
/// # Errors
/// The errno of making the queue.
pub fn stat_queue() -> Result<Act, Errno> {
    let queue = Queue::new()?;
    act(move |arm: Arm| arm.during(|| queue.stat()))
}

/// The end of a message queue, some time after its removal. Names its key.
///
/// # Errors
/// None.
pub fn free_queue() -> Result<Act, Errno> {
    freeing(Queue::with_key)
}

/// The end of a segment, as [`free_queue`].
///
/// # Errors
/// None.
pub fn free_segment() -> Result<Act, Errno> {
    freeing(Segment::with_key)
}

/// The end of a set of semaphores, as [`free_queue`].
///
/// # Errors
/// None.
pub fn free_set() -> Result<Act, Errno> {
    freeing(Set::with_key)
}

/// An act that makes an object and removes it. Each time the key is another: what is freed late must not be taken for
/// what is freed next.
fn freeing<T>(make: impl Fn(i32) -> Result<T, Errno> + 'static) -> Result<Act, Errno> {
    let mut key = KEY;
    act(move |arm: Arm| {
        key += 1;
        let object = make(key)?;
        arm.freeing(u64::from(key.cast_unsigned()), || drop(object));
        Ok(())
    })
}

/// A shared memory segment.
struct Segment(i32);

impl Segment {
    fn with_key(key: i32) -> Result<Self, Errno> {
        // SAFETY: takes three numbers.
        Errno::result(unsafe { libc::shmget(key, 4096, MODE) }).map(Self)
    }

    fn stat(&self) -> Result<(), Errno> {
        // SAFETY: all-zero is a valid shmid_ds, plain data.
        let mut into = unsafe { std::mem::zeroed() };
        // SAFETY: the command fills in one structure.
        Errno::result(unsafe { libc::shmctl(self.0, libc::IPC_STAT, &raw mut into) }).map(drop)
    }

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
    let segment = Segment::with_key(libc::IPC_PRIVATE)?;
    act(move |arm: Arm| {
        let address = arm.during(|| segment.attach())?;
        // SAFETY: attached just now, and known to nobody else.
        Errno::result(unsafe { libc::shmdt(address) })
    })
}

/// `shmget(2)` of a new segment.
///
/// # Errors
/// None.
pub fn shmget() -> Result<Act, Errno> {
    act(|arm: Arm| arm.during(|| Segment::with_key(libc::IPC_PRIVATE)))
}

/// `shmget(2)` of a segment that is there, by its key.
///
/// # Errors
/// The errno of making the segment.
pub fn find_segment() -> Result<Act, Errno> {
    let segment = Segment::with_key(KEY)?;
    act(move |arm: Arm| {
        let _kept = &segment;
        // SAFETY: takes three numbers.
        arm.during(|| Errno::result(unsafe { libc::shmget(KEY, 0, 0) }))
    })
}

/// `shmctl(2)`, asking for a segment's state.
///
/// # Errors
/// The errno of making the segment.
pub fn stat_segment() -> Result<Act, Errno> {
    let segment = Segment::with_key(libc::IPC_PRIVATE)?;
    act(move |arm: Arm| arm.during(|| segment.stat()))
}

/// A set of one semaphore.
struct Set(i32);

impl Set {
    fn with_key(key: i32) -> Result<Self, Errno> {
        // SAFETY: takes three numbers.
        Errno::result(unsafe { libc::semget(key, 1, MODE) }).map(Self)
    }

    fn stat(&self) -> Result<(), Errno> {
        let mut into = [0_u64; 32];
        // SAFETY: the command fills in one structure, of 104 bytes.
        Errno::result(unsafe { libc::semctl(self.0, 0, libc::IPC_STAT, into.as_mut_ptr()) }).map(drop)
    }

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
    let set = Set::with_key(libc::IPC_PRIVATE)?;
    act(move |arm: Arm| arm.during(|| set.raise()))
}

/// `semget(2)` of a new set.
///
/// # Errors
/// None.
pub fn semget() -> Result<Act, Errno> {
    act(|arm: Arm| arm.during(|| Set::with_key(libc::IPC_PRIVATE)))
}

/// `semget(2)` of a set that is there, by its key.
///
/// # Errors
/// The errno of making the set.
pub fn find_set() -> Result<Act, Errno> {
    let set = Set::with_key(KEY)?;
    act(move |arm: Arm| {
        let _kept = &set;
        // SAFETY: takes three numbers.
        arm.during(|| Errno::result(unsafe { libc::semget(KEY, 0, 0) }))
    })
}

/// `semctl(2)`, asking for a set's state.
///
/// # Errors
/// The errno of making the set.
pub fn stat_set() -> Result<Act, Errno> {
    let set = Set::with_key(libc::IPC_PRIVATE)?;
    act(move |arm: Arm| arm.during(|| set.stat()))
}

/// `shmctl(2)` that changes the mode of a new segment, to what it is.
///
/// # Errors
/// The errno of making or changing the segment.
pub(super) fn change_segment(arm: Arm) -> Result<(), Errno> {
    let segment = Segment::with_key(libc::IPC_PRIVATE)?;
    // SAFETY: all-zero is a valid shmid_ds, plain data.
    let mut into: libc::shmid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: the command fills in one structure.
    Errno::result(unsafe { libc::shmctl(segment.0, libc::IPC_STAT, &raw mut into) })?;
    // SAFETY: the command reads one structure.
    arm.during(|| Errno::result(unsafe { libc::shmctl(segment.0, libc::IPC_SET, &raw mut into) })).map(drop)
}
