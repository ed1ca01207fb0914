//! The atomic operations, as instructions spell them.

use crate::insn::op;

/// An atomic operation on memory. All but [`Atomic::Add`] need 5.12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Atomic {
    /// `lock *p += src`.
    Add,
    /// `lock *p |= src`.
    Or,
    /// `lock *p &= src`.
    And,
    /// `lock *p ^= src`.
    Xor,
    /// `src = fetch_add(p, src)`.
    FetchAdd,
    /// `src = fetch_or(p, src)`.
    FetchOr,
    /// `src = fetch_and(p, src)`.
    FetchAnd,
    /// `src = fetch_xor(p, src)`.
    FetchXor,
    /// `src = xchg(p, src)`.
    Xchg,
    /// `r0 = cmpxchg(p, r0, src)`.
    Cmpxchg,
}

impl Atomic {
    /// What stands in the instruction's immediate.
    pub(super) const fn imm(self) -> i32 {
        match self {
            Self::Add => op::ADD as i32,
            Self::Or => op::OR as i32,
            Self::And => op::AND as i32,
            Self::Xor => op::XOR as i32,
            Self::FetchAdd => op::ADD as i32 | op::FETCH,
            Self::FetchOr => op::OR as i32 | op::FETCH,
            Self::FetchAnd => op::AND as i32 | op::FETCH,
            Self::FetchXor => op::XOR as i32 | op::FETCH,
            Self::Xchg => op::XCHG,
            Self::Cmpxchg => op::CMPXCHG,
        }
    }
}
