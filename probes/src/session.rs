//! What a probe's function works with. (Filled in by the guest.)

/// A probe's view of the kernel it runs on.
pub struct Session<'a> {
    _kernel: std::marker::PhantomData<&'a ()>,
}

/// Why a probe could not tell.
pub struct Stop(pub String);
