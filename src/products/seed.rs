//! Demo data, the same each time, by COPY.

use std::fmt::Write;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::{Client, CopyInSink};

/// What there is to choose from; the order is part of what makes the data the same each time.
const CATEGORIES: [&str; 20] = [
    "Sport", "Books", "Garden", "Kitchen", "Toys", "Music", "Office", "Shoes", "Jackets", "Lamps", "Tools", "Bicycles",
    "Tea", "Coffee", "Paper", "Phones", "Cameras", "Games", "Health", "Travel",
];
const TAGS: [&str; 50] = [
    "new",
    "sale",
    "eco",
    "gift",
    "limited",
    "bestseller",
    "handmade",
    "kids",
    "adults",
    "summer",
    "winter",
    "spring",
    "autumn",
    "red",
    "green",
    "blue",
    "black",
    "white",
    "wood",
    "steel",
    "cotton",
    "wool",
    "glass",
    "light",
    "heavy",
    "small",
    "large",
    "travel",
    "home",
    "work",
    "outdoor",
    "indoor",
    "classic",
    "modern",
    "vintage",
    "vegan",
    "local",
    "imported",
    "organic",
    "recycled",
    "premium",
    "budget",
    "refurbished",
    "digital",
    "analog",
    "quiet",
    "fast",
    "waterproof",
    "foldable",
    "rechargeable",
];
const ADJECTIVES: [&str; 12] =
    ["Sturdy", "Light", "Bright", "Quiet", "Handy", "Classic", "Clever", "Soft", "Swift", "Plain", "Bold", "Fine"];
const NOUNS: [&str; 12] = [
    "Kettle",
    "Jacket",
    "Lamp",
    "Notebook",
    "Racket",
    "Bicycle",
    "Teapot",
    "Headphones",
    "Backpack",
    "Chair",
    "Camera",
    "Puzzle",
];
/// 2023-08-08T12:00:00Z; each product is a minute younger than the one before.
const FIRST_CREATED: i64 = 1_691_496_000;
/// Bytes that travel together.
const COPY_BYTES: usize = 64 * 1024;

/// Adds so many products, with categories and tags where they are missing, in one transaction. `progress` hears how many
/// are done.
pub(crate) async fn products(client: &mut Client, count: u64, progress: impl Fn(u64)) -> anyhow::Result<()> {
    let transaction = client.transaction().await?;
    // first of all: who waits for this one must not hold what it needs later
    transaction.batch_execute("lock table products in share row exclusive mode").await?;
    let bulk = count >= BULK && transaction.query_one(OWNS_THE_SCHEMA, &[]).await?.get(0);
    let mut later = Vec::new();
    if bulk {
        for row in transaction.query(DROPPABLE, &[]).await? {
            transaction.batch_execute(row.get(0)).await?;
            later.push(row.get::<_, String>(1));
        }
    }
    let names = async |sql: &'static str, names: &[&str]| -> anyhow::Result<Vec<i64>> {
        let rows = transaction.query(sql, &[&names]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    };
    let categories = names(NAMED_CATEGORIES, &CATEGORIES).await?;
    let tags = names(NAMED_TAGS, &TAGS).await?;
    // ids are taken in one piece, so that links can be made without asking for each
    let first: i64 = transaction.query_one(RESERVE_IDS, &[&i64::try_from(count)?]).await?.get(0);

    let copy = "copy products (id, category_id, name, description, price, created_at) from stdin";
    let mut lines = Lines::new(transaction.copy_in(copy).await?);
    for number in 0..count {
        let (id, mixed) = (first + i64::try_from(number)?, mix(number));
        let category = categories[pick(mixed, categories.len())];
        let (adjective, noun) = (ADJECTIVES[pick(mixed >> 8, 12)], NOUNS[pick(mixed >> 16, 12)]);
        let cents = mixed >> 24 & 0xf_ffff;
        let created = jiff::Timestamp::from_second(FIRST_CREATED + 60 * i64::try_from(number)?)?;
        writeln!(
            lines.buffer,
            "{id}\t{category}\t{adjective} {noun} {number}\t{adjective} and made to last: the {noun} that our customers \
             ask for.\t{}.{:02}\t{created}",
            cents / 100,
            cents % 100,
        )?;
        lines.flush_if_full().await?;
        if number % 10_000 == 0 {
            progress(number);
        }
    }
    lines.finish().await?;

    let mut lines = Lines::new(transaction.copy_in("copy product_tags (product_id, tag_id) from stdin").await?);
    for number in 0..count {
        let (id, mixed) = (first + i64::try_from(number)?, mix(number));
        // none to four, no two the same: a step that shares no factor with the number of tags
        for place in 0..mixed % 5 {
            let tag = tags[pick((mixed >> 32) + place * 7, tags.len())];
            writeln!(lines.buffer, "{id}\t{tag}")?;
        }
        lines.flush_if_full().await?;
    }
    lines.finish().await?;
    if bulk {
        transaction.batch_execute("set local maintenance_work_mem = '256MB'").await?;
    }
    for statement in later {
        transaction.batch_execute(&statement).await?;
    }
    transaction.commit().await?;
    // without figures about the new rows the planner would guess
    client.batch_execute("analyze categories, tags, products, product_tags").await?;
    progress(count);
    Ok(())
}

/// Whether there are products.
pub(crate) async fn any(client: &Client) -> anyhow::Result<bool> {
    Ok(client.query_one("select exists (select from products)", &[]).await?.get(0))
}

/// Adds accounts `user1` ... with one password text for all.
pub(crate) async fn users(client: &Client, count: u64, password: &str) -> anyhow::Result<u64> {
    let sql = "insert into users (username, email, password)
               select 'user' || number, 'user' || number || '@example.com', $2
                 from generate_series(1, $1::bigint) number
                   on conflict do nothing";
    Ok(client.execute(sql, &[&i64::try_from(count)?, &password]).await?)
}

/// From so many products on, and for the owner of the schema, references are checked and indexes are built once at the end,
/// which takes a fraction of the time; the tables are locked for readers too until then.
const BULK: u64 = 10_000;
const OWNS_THE_SCHEMA: &str =
    "select pg_has_role(relowner, 'usage') from pg_class where oid = 'public.products'::regclass";
/// What takes each reference and each index that is no constraint away, and what brings it back.
const DROPPABLE: &str = "
select format('alter table %s drop constraint %I', conrelid::regclass, conname),
       format('alter table %s add constraint %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
  from pg_constraint
 where contype = 'f'
   and conrelid in ('products'::regclass, 'product_tags'::regclass)
 union all
select format('drop index %s', indexrelid::regclass), pg_get_indexdef(indexrelid)
  from pg_index
 where indrelid in ('products'::regclass, 'product_tags'::regclass)
   and not exists (select from pg_constraint where conindid = indexrelid)";
/// Rows of these names, made where they are missing.
const NAMED_CATEGORIES: &str = "
   insert into categories (name) select unnest($1::text[]) on conflict (name) do update set name = excluded.name
returning id";
const NAMED_TAGS: &str = "
   insert into tags (name) select unnest($1::text[]) on conflict (name) do update set name = excluded.name
returning id";
/// Moves the sequence of product ids past a piece of $1 ids and gives the first.
const RESERVE_IDS: &str = "
with first as materialized (select nextval(pg_get_serial_sequence('products', 'id')) as id)
select id, setval(pg_get_serial_sequence('products', 'id'), id + greatest($1::bigint, 1) - 1) from first";

/// Scrambles a number (`SplitMix64`, Steele et al. 2014), the same each time.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn pick(number: u64, choices: usize) -> usize {
    usize::try_from(number % choices as u64).unwrap_or(0)
}

/// Lines on their way into COPY.
struct Lines {
    sink: std::pin::Pin<Box<CopyInSink<Bytes>>>,
    buffer: String,
}

impl Lines {
    fn new(sink: CopyInSink<Bytes>) -> Self {
        Self { sink: Box::pin(sink), buffer: String::with_capacity(COPY_BYTES + 512) }
    }

    async fn flush_if_full(&mut self) -> anyhow::Result<()> {
        if self.buffer.len() >= COPY_BYTES {
            let full = BytesMut::from(self.buffer.as_bytes()).freeze();
            self.buffer.clear();
            self.sink.feed(full).await?;
        }
        Ok(())
    }

    async fn finish(mut self) -> anyhow::Result<()> {
        let rest = Bytes::from(std::mem::take(&mut self.buffer));
        self.sink.send(rest).await?;
        self.sink.as_mut().finish().await?;
        Ok(())
    }
}
