//! What tests of pages hold them against: the project's own claims and snapshots, read once.

use super::check::Evidence;
use crate::claims::{Claims, List};
use crate::facts::{self, Item, Kind};
use crate::snapshot::{Ci, Snapshot, Store};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

/// A page in the documentation's shape.
pub(super) const PAGE: &str = include_str!("fixture.md");

pub(super) struct Project {
    pub(super) snapshots: BTreeMap<String, Snapshot>,
    kernels: Vec<String>,
    items: BTreeMap<(Kind, String), Item>,
    pub(super) claims: Claims,
}

impl Project {
    /// The names of what some kernel lets LSM programs call.
    pub(super) fn items_of(&self, list: List) -> impl Iterator<Item = &str> {
        let of_kind = self.items.values().filter(move |item| item.kind == list.kind());
        of_kind.filter(|item| !item.answers.spans().is_empty()).map(|item| item.name.as_str())
    }
}

pub(super) static PROJECT: LazyLock<Project> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let snapshots = Store::new(root.join("snapshots"), Ci::Yes).load_all().unwrap();
    let kernels: Vec<String> = snapshots["program/type"].kernels().map(str::to_owned).collect();
    let items = facts::collect(&snapshots, &kernels);
    Project { snapshots, kernels, items, claims: Claims::load(&root.join("claims")).unwrap() }
});

/// The project as evidence.
pub(super) fn evidence() -> Evidence<'static> {
    let project = &*PROJECT;
    Evidence {
        snapshots: &project.snapshots,
        kernels: &project.kernels,
        items: &project.items,
        claims: &project.claims,
    }
}
