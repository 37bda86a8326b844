//! Deterministic demo data, written with COPY.

use std::fmt::Write;

use bytes::Bytes;
use futures_util::SinkExt;
use jiff::Timestamp;
use tokio_postgres::{Client, CopyInSink, Transaction};

// The order of these names determines the data.
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
/// 2023-08-08T12:00:00Z in seconds. Each product is created a minute after the previous one.
const FIRST_CREATED_AT: i64 = 1_691_496_000;
const COPY_BUFFER_BYTES: usize = 64 * 1024;
/// From this number of products on, the owner of the schema drops indexes and foreign keys and rebuilds them at the
/// end, which takes a fraction of the time. The tables are locked for readers too until then.
const BULK_THRESHOLD: u64 = 10_000;

const OWNS_SCHEMA: &str = "select pg_has_role(relowner, 'usage') from pg_class where oid = 'public.products'::regclass";
/// Returns a statement that drops each foreign key and each index without a constraint, and one that rebuilds it.
const REBUILDABLE_DDL: &str = "
select format('alter table %s drop constraint %I', conrelid::regclass, conname) as drop_ddl,
       format('alter table %s add constraint %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
           as create_ddl
  from pg_constraint
 where contype = 'f'
   and conrelid in ('products'::regclass, 'product_tags'::regclass)
 union all
select format('drop index %s', indexrelid::regclass), pg_get_indexdef(indexrelid)
  from pg_index
 where indrelid in ('products'::regclass, 'product_tags'::regclass)
   and not exists (select from pg_constraint where conindid = indexrelid)";
/// Reserves $1 consecutive product ids and returns the first.
const RESERVE_IDS: &str = "
with first as materialized (select nextval(pg_get_serial_sequence('products', 'id')) as id)
select id, setval(pg_get_serial_sequence('products', 'id'), id + greatest($1::bigint, 1) - 1) from first";

/// Adds `count` products, and the categories and tags that are missing, in one transaction. `progress` receives the
/// number of products written.
pub(crate) async fn products(client: &mut Client, count: u64, progress: impl Fn(u64)) -> anyhow::Result<()> {
    let transaction = client.transaction().await?;
    // the first statement, so that a transaction that waits for this lock holds none that this one needs later
    transaction.batch_execute("lock table products in share row exclusive mode").await?;
    let is_bulk = count >= BULK_THRESHOLD && transaction.query_one(OWNS_SCHEMA, &[]).await?.get(0);
    let deferred_ddl = if is_bulk { drop_rebuildable(&transaction).await? } else { Vec::new() };
    let categories = upsert(&transaction, "categories", &CATEGORIES).await?;
    let tags = upsert(&transaction, "tags", &TAGS).await?;
    let first_id = transaction.query_one(RESERVE_IDS, &[&i64::try_from(count)?]).await?.get("id");
    copy_products(&transaction, first_id, count, &categories, &progress).await?;
    copy_product_tags(&transaction, first_id, count, &tags).await?;
    if is_bulk {
        transaction.batch_execute("set local maintenance_work_mem = '256MB'").await?;
    }
    for statement in deferred_ddl {
        transaction.batch_execute(&statement).await?;
    }
    transaction.commit().await?;
    // the planner has no statistics of the new rows before the next autovacuum
    client.batch_execute("analyze categories, tags, products, product_tags").await?;
    progress(count);
    Ok(())
}

/// Adds the accounts `user1` to `user{count}` with one password hash. Returns the number of new accounts.
pub(crate) async fn users(client: &Client, count: u64, password_hash: &str) -> anyhow::Result<u64> {
    let sql = "insert into users (username, email, password)
               select 'user' || number, 'user' || number || '@example.com', $2
                 from generate_series(1, $1::bigint) number
                   on conflict do nothing";
    Ok(client.execute(sql, &[&i64::try_from(count)?, &password_hash]).await?)
}

pub(crate) async fn has_products(client: &Client) -> anyhow::Result<bool> {
    Ok(client.query_one("select exists (select from products)", &[]).await?.get(0))
}

/// Drops foreign keys and indexes, and returns the statements that rebuild them.
async fn drop_rebuildable(transaction: &Transaction<'_>) -> anyhow::Result<Vec<String>> {
    let mut deferred_ddl = Vec::new();
    for row in transaction.query(REBUILDABLE_DDL, &[]).await? {
        transaction.batch_execute(row.get("drop_ddl")).await?;
        deferred_ddl.push(row.get("create_ddl"));
    }
    Ok(deferred_ddl)
}

/// Returns the ids of the rows with these names; inserts missing ones.
async fn upsert(transaction: &Transaction<'_>, table: &str, names: &[&str]) -> anyhow::Result<Vec<i64>> {
    let sql = format!(
        "insert into {table} (name) select unnest($1::text[]) on conflict (name) do update set name = excluded.name
         returning id"
    );
    let rows = transaction.query(&sql, &[&names]).await?;
    Ok(rows.iter().map(|row| row.get("id")).collect())
}

async fn copy_products(
    transaction: &Transaction<'_>,
    first_id: i64,
    count: u64,
    categories: &[i64],
    progress: impl Fn(u64),
) -> anyhow::Result<()> {
    let sql = "copy products (id, category_id, name, description, price, created_at) from stdin";
    let mut copy = CopyWriter::new(transaction.copy_in(sql).await?);
    for number in 0..count {
        let (id, random) = (first_id + i64::try_from(number)?, splitmix64(number));
        let category = categories[pick(random, categories.len())];
        let (adjective, noun) = (ADJECTIVES[pick(random >> 8, 12)], NOUNS[pick(random >> 16, 12)]);
        let cents = random >> 24 & 0xf_ffff;
        let created_at = Timestamp::from_second(FIRST_CREATED_AT + 60 * i64::try_from(number)?)?;
        writeln!(
            copy.buffer,
            "{id}\t{category}\t{adjective} {noun} {number}\t{adjective} and made to last: the {noun} that our \
             customers ask for.\t{}.{:02}\t{created_at}",
            cents / 100,
            cents % 100,
        )?;
        copy.flush_if_full().await?;
        if number % 10_000 == 0 {
            progress(number);
        }
    }
    copy.finish().await
}

async fn copy_product_tags(
    transaction: &Transaction<'_>,
    first_id: i64,
    count: u64,
    tags: &[i64],
) -> anyhow::Result<()> {
    let sql = "copy product_tags (product_id, tag_id) from stdin";
    let mut copy = CopyWriter::new(transaction.copy_in(sql).await?);
    for number in 0..count {
        let (id, random) = (first_id + i64::try_from(number)?, splitmix64(number));
        // up to four different tags: the step 7 is coprime to the number of tags
        for index in 0..random % 5 {
            let tag = tags[pick((random >> 32) + index * 7, tags.len())];
            writeln!(copy.buffer, "{id}\t{tag}")?;
        }
        copy.flush_if_full().await?;
    }
    copy.finish().await
}

/// Returns the pseudo-random number of the index `number` (`SplitMix64`, Steele et al. 2014).
fn splitmix64(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn pick(random: u64, choices: usize) -> usize {
    usize::try_from(random % choices as u64).unwrap_or(0)
}

/// Buffers the lines of a COPY.
struct CopyWriter {
    sink: std::pin::Pin<Box<CopyInSink<Bytes>>>,
    buffer: String,
}

impl CopyWriter {
    fn new(sink: CopyInSink<Bytes>) -> Self {
        Self { sink: Box::pin(sink), buffer: String::with_capacity(COPY_BUFFER_BYTES + 512) }
    }

    async fn flush_if_full(&mut self) -> anyhow::Result<()> {
        if self.buffer.len() >= COPY_BUFFER_BYTES {
            let full = Bytes::copy_from_slice(self.buffer.as_bytes());
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
