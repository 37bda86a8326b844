//! The catalogue as a set of registers. One writer writes increasing versions to each register, so a reader can detect
//! whether a response is older than a write that was acknowledged before the request, or contains what was never
//! written.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use super::observation::Observation;

/// Products 1 to 24 are a register each.
pub const PRODUCTS: usize = 24;
/// Categories 1 to 3 are a register each; product `n` is in category `1 + n % 3`.
pub const CATEGORIES: usize = 3;
/// Products 25 and 26 are one register: they are written together and always equal.
pub const TWINS: [i64; 2] = [25, 26];
/// Slots hold products that are created and deleted; the name of a product has its slot and its generation.
pub const SLOTS: usize = 6;

pub const INITIAL_DATA: &str = "
insert into categories (name) select 'C' || i || ' v0' from generate_series(1, 3) i;
insert into products (category_id, name, description, price)
    select 1 + i % 3, 'P' || i || ' v0', '0', 0.25 from generate_series(1, 26) i;
insert into tags (name) values ('new'), ('eco');
insert into product_tags select p.id, t.id from products p, tags t";

/// The versions that were written to a register.
#[derive(Default)]
pub struct Register {
    begun: AtomicU64,
    acknowledged: AtomicU64,
    writes: AtomicU64,
    /// Versions that no reader may see at any time.
    rolled_back: Mutex<HashSet<u64>>,
}

impl Register {
    /// Returns the next version. From now on readers may see it.
    pub fn begin(&self) -> u64 {
        self.begun.fetch_add(1, SeqCst) + 1
    }

    /// Returns the next version, whose transaction will be rolled back.
    pub fn begin_rolled_back(&self) -> u64 {
        let mut rolled_back = self.rolled_back.lock().unwrap();
        let version = self.begin();
        rolled_back.insert(version);
        version
    }

    fn is_rolled_back(&self, version: u64) -> bool {
        self.rolled_back.lock().unwrap().contains(&version)
    }

    pub fn last_acknowledged(&self) -> u64 {
        self.acknowledged.load(SeqCst)
    }
}

/// The state of the product in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Deleted, or not created yet.
    Absent,
    /// During its creation or deletion readers may see it or not.
    Changing,
    Present,
}

/// Generation and phase; `None` before the first creation.
type SlotState = Option<(u64, Phase)>;

/// Everything that was written, and the violations that readers found.
#[derive(Default)]
pub struct Model {
    pub products: [Register; PRODUCTS],
    pub categories: [Register; CATEGORIES],
    pub twins: Register,
    slots: Mutex<[SlotState; SLOTS]>,
    slot_changes: AtomicU64,
    /// Increases when the lower bound changes.
    epoch: AtomicU64,
    /// The digest of the content by entity tag, and the parsed content while a reader holds it.
    etags: Mutex<HashMap<String, (u64, Weak<Observation>)>>,
    violations: Mutex<Vec<String>>,
    pub counters: Counters,
}

/// Counts of the readers and writers.
#[derive(Default)]
pub struct Counters {
    pub reads: AtomicUsize,
    pub not_modified: AtomicUsize,
    /// Reads that got 503.
    pub unavailable: AtomicUsize,
    /// Reads whose connection broke.
    pub disconnected: AtomicUsize,
    pub labelled_stale: AtomicUsize,
    /// Copies of the list that the change feed brought to a present state.
    pub followed: AtomicUsize,
    pub unknown_outcomes: AtomicUsize,
    /// Requests whose client disconnected before the response.
    pub abandoned: AtomicUsize,
    /// Tokens that were revoked by a logout.
    pub revoked_tokens: AtomicUsize,
    /// Requests with such a token, which was refused.
    pub refused: AtomicUsize,
}

/// The writes that were acknowledged when a read began.
pub struct LowerBound {
    products: [u64; PRODUCTS],
    categories: [u64; CATEGORIES],
    twins: u64,
    slots: [SlotState; SLOTS],
}

impl Model {
    pub fn lower_bound(&self) -> LowerBound {
        LowerBound {
            products: std::array::from_fn(|index| self.products[index].last_acknowledged()),
            categories: std::array::from_fn(|index| self.categories[index].last_acknowledged()),
            twins: self.twins.last_acknowledged(),
            slots: *self.slots.lock().unwrap(),
        }
    }

    /// Returns a number that is the same as before if the lower bound is.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// From now on readers must see this version of the register, one of the model's, or a later one.
    pub fn acknowledge(&self, register: &Register, version: u64) {
        register.acknowledged.store(version, SeqCst);
        register.writes.fetch_add(1, SeqCst);
        self.epoch.fetch_add(1, SeqCst);
    }

    pub fn set_slot(&self, slot: usize, generation: u64, phase: Phase) {
        self.slots.lock().unwrap()[slot] = Some((generation, phase));
        self.epoch.fetch_add(1, SeqCst);
        if phase != Phase::Changing {
            self.slot_changes.fetch_add(1, SeqCst);
        }
    }

    /// Number of acknowledged writes.
    pub fn writes(&self) -> u64 {
        let registers = self.products.iter().chain(&self.categories).chain([&self.twins]);
        registers.map(|register| register.writes.load(SeqCst)).sum::<u64>() + self.slot_changes.load(SeqCst)
    }

    /// Number of slots whose product is present.
    pub fn present(&self) -> i64 {
        let slots = self.slots.lock().unwrap();
        slots.iter().flatten().filter(|(_, phase)| *phase == Phase::Present).count().try_into().unwrap()
    }

    /// Records a violation; after 20 the others are dropped.
    pub fn report_violation(&self, message: String) {
        let mut violations = self.violations.lock().unwrap();
        if violations.len() < 20 {
            violations.push(message);
        }
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    /// Checks that an entity tag identifies the same bytes on every instance at any time, and returns the parsed bytes.
    /// The same bytes are parsed once.
    pub fn check_etag(
        &self,
        etag: &str,
        bytes: &[u8],
        parse: impl FnOnce(&[u8]) -> Result<Observation, String>,
    ) -> Option<Arc<Observation>> {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let digest = u64::from_be_bytes(digest.as_ref()[..8].try_into().unwrap());
        let parsed = {
            let mut etags = self.etags.lock().unwrap();
            let (known, observation) = etags.entry(etag.to_owned()).or_insert_with(|| (digest, Weak::new()));
            if *known == digest { Ok(observation.upgrade()) } else { Err(format!("{etag} identifies two contents")) }
        };
        if let Some(observation) = parsed.map_err(|message| self.report_violation(message)).ok()? {
            return Some(observation);
        }
        let observation = Arc::new(parse(bytes).map_err(|message| self.report_violation(message)).ok()?);
        self.etags.lock().unwrap().insert(etag.to_owned(), (digest, Arc::downgrade(&observation)));
        Some(observation)
    }

    /// Checks a response to a request that began at `lower_bound`. A response that `is_full` must contain all products.
    pub fn check(&self, observation: &Observation, lower_bound: &LowerBound, is_full: bool) {
        if let Err(message) = self.find_violation(observation, lower_bound, is_full) {
            self.report_violation(message);
        }
    }

    fn find_violation(&self, observed: &Observation, lower_bound: &LowerBound, is_full: bool) -> Result<(), String> {
        for (index, version) in observed.products.iter().enumerate() {
            check_version('P', index + 1, *version, lower_bound.products[index], &self.products[index], is_full)?;
        }
        for (index, version) in observed.categories.iter().enumerate() {
            let register = &self.categories[index];
            check_version('C', index + 1, *version, lower_bound.categories[index], register, is_full)?;
        }
        for (twin, version) in TWINS.into_iter().zip(observed.twins) {
            let id = usize::try_from(twin).unwrap();
            check_version('P', id, version, lower_bound.twins, &self.twins, is_full)?;
        }
        if let [Some(first), Some(second)] = observed.twins
            && first != second
        {
            return Err(format!("torn twins: v{first} and v{second}"));
        }
        if is_full { self.check_slots(&observed.slots, lower_bound) } else { Ok(()) }
    }

    /// Checks the slots whose state was the same before the read and after it.
    fn check_slots(&self, observed: &[Option<u64>; SLOTS], lower_bound: &LowerBound) -> Result<(), String> {
        let now = *self.slots.lock().unwrap();
        for (slot, (before, after)) in lower_bound.slots.iter().zip(now).enumerate() {
            let found = observed[slot];
            match before {
                Some((generation, Phase::Present)) if after == *before && found != Some(*generation) => {
                    return Err(format!("slot {slot} contains {generation}, and the list contains {found:?}"));
                }
                Some((generation, Phase::Absent)) if after == *before && found.is_some() => {
                    return Err(format!("slot {slot} {generation} was deleted, and the list contains {found:?}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl LowerBound {
    /// The lower bound of a response that is labelled stale: it may be old, but not torn, and must have been written.
    pub fn none() -> Self {
        Self { products: [0; PRODUCTS], categories: [0; CATEGORIES], twins: 0, slots: [None; SLOTS] }
    }
}

fn check_version(
    kind: char,
    id: usize,
    version: Option<u64>,
    lower_bound: u64,
    register: &Register,
    is_full: bool,
) -> Result<(), String> {
    let Some(version) = version else {
        return if is_full { Err(format!("{kind}{id} is missing")) } else { Ok(()) };
    };
    if version < lower_bound {
        return Err(format!("stale: {kind}{id} v{version}, after v{lower_bound} was acknowledged"));
    }
    let begun = register.begun.load(SeqCst);
    if version > begun {
        return Err(format!("{kind}{id} v{version}, when v{begun} was the last that was written"));
    }
    if register.is_rolled_back(version) {
        return Err(format!("{kind}{id} v{version}, which was rolled back"));
    }
    Ok(())
}

/// The price of a product at a version.
pub fn price(version: u64) -> String {
    format!("{}.25", version % 1_000_000)
}
