//! The catalogue as a set of registers. Each is written by one writer, number after number, so a reader can tell whether
//! what it was shown is older than what had been acknowledged before it asked, or was never written at all.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use serde::Deserialize;

/// Products 1 to 24 are a register each.
pub const PRODUCTS: usize = 24;
/// Categories 1 to 3 are too; product `n` is in category `1 + n % 3`.
pub const CATEGORIES: usize = 3;
/// Products 25 and 26 are written together and are always alike.
pub const TWINS: [i64; 2] = [25, 26];
/// Products that come and go, each with its name and the number of its coming.
pub const SLOTS: usize = 6;

/// The state at the beginning.
pub const INITIAL_DATA: &str = "
insert into categories (name) select 'C' || i || ' v0' from generate_series(1, 3) i;
insert into products (category_id, name, description, price)
    select 1 + i % 3, 'P' || i || ' v0', '0', 0.25 from generate_series(1, 26) i;
insert into tags (name) values ('new'), ('eco');
insert into product_tags select p.id, t.id from products p, tags t";

/// What was written to one place.
#[derive(Default)]
pub struct Register {
    begun: AtomicU64,
    acknowledged: AtomicU64,
    writes: AtomicU64,
}

impl Register {
    /// The next number; from now on readers may see it.
    pub fn begin(&self) -> u64 {
        self.begun.fetch_add(1, SeqCst) + 1
    }

    /// From now on readers must see it, or a later one.
    pub fn acknowledge(&self, number: u64) {
        self.acknowledged.store(number, SeqCst);
        self.writes.fetch_add(1, SeqCst);
    }

    pub fn last(&self) -> u64 {
        self.acknowledged.load(SeqCst)
    }
}

/// How it is with a product that comes and goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Deleted, or not made yet.
    Absent,
    /// On its way in or out: it may be seen or not.
    Changing,
    Present,
}

/// All that was written.
#[derive(Default)]
pub struct Model {
    pub products: [Register; PRODUCTS],
    pub categories: [Register; CATEGORIES],
    pub twins: Register,
    slots: Mutex<[Option<(u64, Phase)>; SLOTS]>,
    slot_changes: AtomicU64,
    /// By entity tag: the digest of its text, and what that says while some reader has it.
    tags: Mutex<HashMap<String, (u64, Weak<Observation>)>>,
    violations: Mutex<Vec<String>>,
    pub seen: Counters,
}

/// What the readers and writers met.
#[derive(Default)]
pub struct Counters {
    pub reads: AtomicUsize,
    pub not_modified: AtomicUsize,
    pub rejected: AtomicUsize,
    pub disconnected: AtomicUsize,
    pub labelled_stale: AtomicUsize,
    pub unknown_outcomes: AtomicUsize,
    /// Clients that left before their answer was there.
    pub abandoned: AtomicUsize,
}

/// What had been acknowledged when a read began.
pub struct LowerBound {
    products: [u64; PRODUCTS],
    categories: [u64; CATEGORIES],
    twins: u64,
    slots: [Option<(u64, Phase)>; SLOTS],
}

/// A product as it was shown.
#[derive(Deserialize)]
pub struct ProductRow {
    pub id: i64,
    pub name: String,
    pub description: String,
    pub category_name: String,
    pub price: serde_json::Number,
    pub tags: Vec<String>,
}

/// What rows that were shown say, once nothing in them was torn: the numbers alone.
pub struct Observation {
    /// By place: number - 1.
    products: [Option<u64>; PRODUCTS],
    categories: [Option<u64>; CATEGORIES],
    twins: [Option<u64>; 2],
    slots: [Option<u64>; SLOTS],
}

impl Model {
    pub fn lower_bound(&self) -> LowerBound {
        LowerBound {
            products: std::array::from_fn(|number| self.products[number].last()),
            categories: std::array::from_fn(|number| self.categories[number].last()),
            twins: self.twins.last(),
            slots: *self.slots.lock().unwrap(),
        }
    }

    pub fn set_slot(&self, number: usize, coming: u64, phase: Phase) {
        self.slots.lock().unwrap()[number] = Some((coming, phase));
        if phase != Phase::Changing {
            self.slot_changes.fetch_add(1, SeqCst);
        }
    }

    /// So many were acknowledged.
    pub fn writes(&self) -> u64 {
        let registers = self.products.iter().chain(&self.categories).chain([&self.twins]);
        registers.map(|register| register.writes.load(SeqCst)).sum::<u64>() + self.slot_changes.load(SeqCst)
    }

    /// So many of the products that come and go are there.
    pub fn present(&self) -> i64 {
        let slots = self.slots.lock().unwrap();
        slots.iter().flatten().filter(|(_, phase)| *phase == Phase::Present).count().try_into().unwrap()
    }

    /// Notes that a promise was broken.
    pub fn report_violation(&self, message: String) {
        let mut violations = self.violations.lock().unwrap();
        if violations.len() < 20 {
            violations.push(message);
        }
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    /// What was told with an entity tag: the same tag must stand for the same bytes, on every instance and for ever. The same
    /// bytes are judged once; `read` says what they say.
    pub fn check_etag(
        &self,
        etag: &str,
        bytes: &[u8],
        read: impl FnOnce(&[u8]) -> Result<Observation, String>,
    ) -> Option<Arc<Observation>> {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let digest = u64::from_be_bytes(digest.as_ref()[..8].try_into().unwrap());
        let known = {
            let mut tags = self.tags.lock().unwrap();
            let (before, shown) = tags.entry(etag.to_owned()).or_insert_with(|| (digest, Weak::new()));
            if *before == digest { Ok(shown.upgrade()) } else { Err(format!("{etag} stands for two texts")) }
        };
        if let Some(shown) = known.map_err(|message| self.report_violation(message)).ok()? {
            return Some(shown);
        }
        let shown = Arc::new(read(bytes).map_err(|message| self.report_violation(message)).ok()?);
        self.tags.lock().unwrap().insert(etag.to_owned(), (digest, Arc::downgrade(&shown)));
        Some(shown)
    }

    /// What was shown to a read which began at `lower_bound`; `is_full`: all products should be there.
    pub fn check(&self, shown: &Observation, lower_bound: &LowerBound, is_full: bool) {
        if let Err(message) = self.find_violation(shown, lower_bound, is_full) {
            self.report_violation(message);
        }
    }

    fn find_violation(&self, shown: &Observation, lower_bound: &LowerBound, is_full: bool) -> Result<(), String> {
        for (place, number) in shown.products.iter().enumerate() {
            check_limits("P", place + 1, *number, lower_bound.products[place], &self.products[place], is_full)?;
        }
        for (place, number) in shown.categories.iter().enumerate() {
            check_limits("C", place + 1, *number, lower_bound.categories[place], &self.categories[place], is_full)?;
        }
        for (twin, number) in TWINS.into_iter().zip(shown.twins) {
            check_limits("P", usize::try_from(twin).unwrap(), number, lower_bound.twins, &self.twins, is_full)?;
        }
        if let [Some(one), Some(other)] = shown.twins
            && one != other
        {
            return Err(format!("torn twins: {one} and {other}"));
        }
        if is_full { self.check_slots(&shown.slots, lower_bound) } else { Ok(()) }
    }

    /// What was there, or away, before the read and still after it must have been so for the read.
    fn check_slots(&self, shown: &[Option<u64>; SLOTS], lower_bound: &LowerBound) -> Result<(), String> {
        let now = *self.slots.lock().unwrap();
        for (number, (before, after)) in lower_bound.slots.iter().zip(now).enumerate() {
            let found = shown[number];
            match before {
                Some((coming, Phase::Present)) if after == *before && found != Some(*coming) => {
                    return Err(format!("slot {number} {coming} was made, and {found:?} is shown"));
                }
                Some((coming, Phase::Absent)) if after == *before && found.is_some() => {
                    return Err(format!("slot {number} {coming} was deleted, and {found:?} is shown"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl LowerBound {
    /// What an answer is held against that says itself that it may be old: all of it must have been written, and nothing torn.
    pub fn none() -> Self {
        Self { products: [0; PRODUCTS], categories: [0; CATEGORIES], twins: 0, slots: [None; SLOTS] }
    }
}

impl Observation {
    /// What a list says.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let rows = serde_json::from_slice::<Vec<ProductRow>>(json);
        Self::from_rows(&rows.map_err(|error| format!("no list: {error}: {}", String::from_utf8_lossy(json)))?)
    }

    /// Of rows that agree with themselves and each other.
    pub fn from_rows(rows: &[ProductRow]) -> Result<Self, String> {
        let mut shown =
            Self { products: [None; PRODUCTS], categories: [None; CATEGORIES], twins: [None; 2], slots: [None; SLOTS] };
        let mut ids = HashSet::new();
        for row in rows {
            if !ids.insert(row.id) {
                return Err(format!("product {} is there twice", row.id));
            }
            let (category, number) = split_version(&row.category_name)?;
            let place: usize = category.trim_start_matches('C').parse().map_err(|_| row.category_name.clone())?;
            let category = shown.categories.get_mut(place - 1).ok_or_else(|| row.category_name.clone())?;
            if *category.get_or_insert(number) != number {
                return Err(format!("a torn list: {} and {category:?}", row.category_name));
            }
            if let Some(slot) = row.name.strip_prefix("slot ") {
                let (slot, coming) = slot.split_once(' ').ok_or_else(|| row.name.clone())?;
                shown.slots[slot.parse::<usize>().unwrap()] = Some(coming.parse().unwrap());
                continue;
            }
            let number = row_version(row)?;
            let twin = TWINS.iter().position(|twin| *twin == row.id);
            let place = match (usize::try_from(row.id).unwrap(), twin) {
                (_, Some(twin)) => &mut shown.twins[twin],
                (id @ 1..=PRODUCTS, _) => &mut shown.products[id - 1],
                _ => return Err(format!("a product that nobody made: {}", row.name)),
            };
            *place = Some(number);
        }
        Ok(shown)
    }
}

/// `P7 v12`: what it is, and its number.
fn split_version(name: &str) -> Result<(&str, u64), String> {
    name.split_once(" v").and_then(|(what, number)| Some((what, number.parse().ok()?))).ok_or_else(|| name.to_owned())
}

fn check_limits(
    what: &str,
    place: usize,
    number: Option<u64>,
    lower_bound: u64,
    register: &Register,
    is_full: bool,
) -> Result<(), String> {
    let Some(number) = number else {
        return if is_full { Err(format!("{what}{place} is not there")) } else { Ok(()) };
    };
    if number < lower_bound {
        return Err(format!("stale: {what}{place} v{number} is shown when {lower_bound} had been acknowledged"));
    }
    let begun = register.begun.load(SeqCst);
    if number > begun {
        return Err(format!("{what}{place} v{number} is shown when {begun} was the last that anybody wrote"));
    }
    Ok(())
}

/// The number that all columns of a row agree on.
fn row_version(row: &ProductRow) -> Result<u64, String> {
    let (what, number) = split_version(&row.name)?;
    let is_full = what == format!("P{}", row.id)
        && row.description == number.to_string()
        && row.price.to_string() == price(number)
        && row.tags == ["eco", "new"]
        && row.category_name.starts_with(&format!("C{} ", 1 + row.id % 3));
    let message =
        || format!("a torn row: {} {} {} {} {:?}", row.name, row.description, row.price, row.category_name, row.tags);
    is_full.then_some(number).ok_or_else(message)
}

/// The price that goes with a number.
pub fn price(number: u64) -> String {
    format!("{}.25", number % 1_000_000)
}
