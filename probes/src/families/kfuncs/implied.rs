//! The misuses that follow from what a row says of its kfunc: what it returns, releases and needs.

use super::body::Body;
use super::row::{Code, GOT, Returns, Row, Sleep, Wrong, WrongKind};
use crate::insn::Reg;
use std::sync::Arc;

/// The case of what may be NULL, given back or used without a look.
pub(super) const NULL_NOT_CHECKED: &str = "misuse-null-not-checked";

/// The call of a row, and something wrong behind it.
fn called(row: &Row, wrong: fn(&mut Body<'_>, &Row)) -> Code {
    let row = row.clone();
    Arc::new(move |body: &mut Body<'_>| {
        (row.before)(body);
        if row.releases {
            body.mov_reg(GOT, Reg::R1);
        }
        body.call_of(&row);
        wrong(body, &row);
        (row.finally)(body);
    })
}

/// The rules that what a kfunc returns implies.
pub(super) fn implied(row: &Row, flags: u32) -> Vec<Wrong> {
    let wrong = |name: &str, flags, with: fn(&mut Body<'_>, &Row)| Wrong {
        name: name.to_owned(),
        flags,
        kind: WrongKind::Body(called(row, with)),
    };
    let mut rules = Vec::new();
    if row.releases {
        rules.push(wrong("misuse-twice", flags, |body, row| {
            body.mov_reg(Reg::R1, GOT).mov_imm(Reg::R2, 0);
            body.kfunc(row.name);
        }));
    }
    if row.sleep == Sleep::Must {
        let kind = WrongKind::NotSleepable(called(row.awake.as_deref().unwrap_or(row), |_, _| {}));
        rules.push(Wrong { name: "misuse-not-sleepable".to_owned(), flags: 0, kind });
    }
    if let Returns::Owned(..) = row.returns {
        rules.push(wrong("misuse-not-released", flags, |_, _| {}));
        rules.push(wrong("misuse-released-twice", flags, released_twice));
    }
    match row.returns {
        Returns::Owned(_, true) => {
            rules.push(wrong(NULL_NOT_CHECKED, flags, |body, row| {
                if let Returns::Owned(release, _) = row.returns {
                    body.give_back(row, release, Reg::R0);
                }
            }));
        }
        Returns::Nullable => {
            rules.push(wrong(NULL_NOT_CHECKED, flags, |body, row| {
                body.mov_reg(GOT, Reg::R0);
                (row.then)(body);
            }));
        }
        Returns::Plain | Returns::Never(_) | Returns::Owned(_, false) => {}
    }
    rules
}

fn released_twice(body: &mut Body<'_>, row: &Row) {
    if let Returns::Owned(release, _) = row.returns {
        body.jeq_imm(Reg::R0, 0, "null").mov_reg(GOT, Reg::R0);
        body.give_back(row, release, GOT);
        body.give_back(row, release, GOT);
        body.label("null");
    }
}
