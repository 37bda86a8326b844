//! Tests of chunked lists against lists that are built from scratch, and of their bodies against decoders.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    process::{Command, Stdio},
    sync::Arc,
};

use flate2::bufread::GzDecoder;
use proptest::prelude::*;

use super::{Chunk, ChunkedList, Rows, compress_array, list::RowChange};
use crate::http::{Representation, body::FRAME_BYTES};

/// The rows of a list: the JSON by id.
type Table = BTreeMap<i64, String>;

fn row(id: i64, bytes: usize) -> String {
    // compresses about as well as the JSON of products
    let words: String = (0..).take(bytes / 9).map(|word| format!(" {:08}", (id * 7919 + word) % 10_007)).collect();
    format!("{{\"id\":{id},\"text\":\"{words}\"}}")
}

fn table(ids: impl Iterator<Item = i64>, bytes: usize) -> Table {
    ids.map(|id| (id, row(id, bytes))).collect()
}

/// Builds the list from scratch.
fn build(table: &Table) -> ChunkedList {
    let (mut chunks, mut rows) = (Vec::new(), Rows::default());
    for (id, json) in table {
        rows.push(*id, |buffer| buffer.extend_from_slice(json.as_bytes()));
        if rows.is_complete() {
            chunks.push(Arc::new(Chunk::new(std::mem::take(&mut rows))));
        }
    }
    if !rows.is_empty() {
        chunks.push(Arc::new(Chunk::new(rows)));
    }
    chunks.iter().for_each(|chunk| drop(chunk.deflated().clone()));
    ChunkedList::new(chunks, usize::MAX)
}

fn expected_json(table: &Table) -> String {
    format!("[{}]", table.values().map(String::as_str).collect::<Vec<_>>().join(","))
}

fn body(list: &Arc<ChunkedList>, representation: Representation) -> Vec<u8> {
    let chunks = list.body_chunks(representation).into_iter().cloned().collect();
    let parts: Vec<_> = list.body(representation, chunks).map(Result::unwrap).collect();
    let body = parts.concat();
    assert_eq!(body.len(), list.body_bytes(representation));
    body
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let (mut json, mut rest) = (Vec::new(), bytes);
    GzDecoder::new(&mut rest).read_to_end(&mut json).unwrap();
    assert!(rest.is_empty(), "a single member");
    json
}

/// Returns the ids at the ends of the chunks.
fn ends(list: &ChunkedList) -> Vec<i64> {
    list.chunks().iter().map(|chunk| chunk.last_id()).collect()
}

/// Fails unless the lists have the same bytes, boundaries, digests and checksum.
fn assert_equal(list: &Arc<ChunkedList>, table: &Table) {
    let expected = Arc::new(build(table));
    assert_eq!(ends(list), ends(&expected));
    assert_eq!(list.content_id, expected.content_id);
    let json = body(list, Representation::Identity);
    assert!(json == expected_json(table).as_bytes(), "the JSON differs");
    let gzip = body(list, Representation::Gzip);
    assert!(gzip == body(&expected, Representation::Gzip), "the compressed bytes differ");
    assert!(gunzip(&gzip) == json, "the compressed bytes are those of another list");
}

fn without_json(list: &ChunkedList) -> Arc<ChunkedList> {
    Arc::new(ChunkedList::new(list.chunks().to_vec(), 0))
}

/// Returns how many chunks of `new` are not those of `old`.
fn rebuilt(old: &ChunkedList, new: &ChunkedList) -> usize {
    let is_shared = |chunk: &Arc<Chunk>| old.chunks().iter().any(|other| Arc::ptr_eq(chunk, other));
    new.chunks().iter().filter(|chunk| !is_shared(chunk)).count()
}

fn change(id: i64, json: &str) -> RowChange {
    RowChange { id, json: Some(json.to_owned().into()) }
}

/// Applies the changes to both the list and its table.
fn apply(list: &mut Arc<ChunkedList>, table: &mut Table, changes: &BTreeMap<i64, Option<String>>) {
    for (id, json) in changes {
        match json {
            Some(json) => table.insert(*id, json.clone()),
            None => table.remove(id),
        };
    }
    let to_change = |(id, json): (&i64, &Option<String>)| RowChange { id: *id, json: json.clone().map(Into::into) };
    let max_json_bytes = if list.has_json() { usize::MAX } else { 0 };
    *list = Arc::new(list.with_changes(&changes.iter().map(to_change).collect::<Vec<_>>(), max_json_bytes));
}

#[test]
fn untouched_chunks_are_shared() {
    let mut table = table(1..=10_000, 250);
    let list = Arc::new(build(&table));
    assert!(list.chunks().len() > 8, "{}", list.chunks().len());
    let (mut total, mut most) = (0, 0);
    for id in (1..=10_000).step_by(50) {
        for json in [Some(row(id, 260)), Some(row(id, 256 << 10)), None] {
            let new = list.with_changes(&[RowChange { id, json: json.clone().map(Into::into) }], usize::MAX);
            let rebuilt = rebuilt(&list, &new);
            (total, most) = (total + rebuilt, most.max(rebuilt));
        }
    }
    assert!(total < 600 * 2 && most <= 6, "600 changes rebuilt {total} chunks, one of them {most}");

    // no change, and a change to the same values
    assert_eq!(rebuilt(&list, &list.with_changes(&[], usize::MAX)), 0);
    let same = list.with_changes(&[change(77, &table[&77])], usize::MAX);
    assert_eq!((same.content_id, rebuilt(&list, &same)), (list.content_id, 0));

    // a row in the middle grows, and shrinks again
    let mut grown = Arc::clone(&list);
    apply(&mut grown, &mut table, &BTreeMap::from([(5_000, Some(row(5_000, 256 << 10)))]));
    assert_equal(&grown, &table);
    apply(&mut grown, &mut table, &BTreeMap::from([(5_000, Some(row(5_000, 250)))]));
    assert_eq!(grown.content_id, list.content_id);
}

#[test]
fn changed_chunks_are_compressed_on_demand() {
    let mut table = table(1..=3_000, 250);
    let list = build(&table);
    assert!(list.is_compressed());
    table.insert(7, row(7, 260));
    let new = Arc::new(list.with_changes(&[change(7, &table[&7])], usize::MAX));
    assert_eq!(body(&new, Representation::Identity), expected_json(&table).into_bytes());
    assert!(!new.is_compressed() && new.chunks().iter().filter(|chunk| !chunk.is_compressed()).count() == 1);
    assert!(new.memory_bytes() > list.memory_bytes(), "what is not compressed yet counts more");
    assert_eq!(new.compress(), body(&new, Representation::Gzip).len());
    assert!(new.is_compressed());
    assert_equal(&new, &table);
}

#[test]
fn rows_after_the_last_one_extend_the_last_chunk() {
    let (mut list, mut table) = (Arc::new(build(&Table::new())), Table::new());
    for first in (0..3_000).step_by(100) {
        let rows = (first..first + 100).map(|id| (id, Some(row(id, 250)))).collect();
        let old = Arc::clone(&list);
        apply(&mut list, &mut table, &rows);
        assert!(rebuilt(&old, &list) <= 2);
        assert_equal(&list, &table);
    }
    let all = table.keys().map(|id| (*id, None)).collect();
    apply(&mut list, &mut table, &all);
    assert_eq!(list.chunks().len(), 0);
    assert_equal(&list, &table);
}

#[test]
fn chunks_without_json_are_decompressed() {
    for rows in [0, 1, 300, 5_000] {
        let mut table = table(1..=rows, 250);
        table.insert(i64::MAX, row(1, 700_000));
        let list = Arc::new(build(&table));
        let mut compressed = without_json(&list);
        let (full_memory, memory) = (list.memory_bytes(), compressed.memory_bytes());
        assert!(memory < full_memory / 2, "{memory} of {full_memory} bytes");
        assert_equal(&compressed, &table);
        let frames = compressed.weak_body(Representation::Identity).map(|frame| frame.unwrap().len());
        assert!(frames.max() <= Some(FRAME_BYTES));
        apply(&mut compressed, &mut table, &BTreeMap::from([(rows / 2, Some(row(0, 300)))]));
        assert_equal(&compressed, &table);
    }
}

#[test]
fn json_is_dropped_above_the_limit_and_restored_at_half_of_it() {
    let table = table(1..=3_000, 250);
    let list = build(&table);
    let json_bytes = list.json_bytes();
    assert!(list.with_changes(&[], json_bytes).has_json());
    let compressed = list.with_changes(&[], json_bytes - 1);
    assert!(!compressed.has_json() && compressed.chunks().iter().all(|chunk| chunk.json().is_none()));
    assert_eq!(compressed.memory_bytes(), list.compressed_bytes());
    assert!(!compressed.with_changes(&[change(7, &table[&8])], 2 * json_bytes - 1).has_json());
    let restored = Arc::new(compressed.with_changes(&[], 2 * json_bytes));
    assert!(restored.has_json() && restored.memory_bytes() == list.memory_bytes());
    assert_equal(&restored, &table);
}

#[test]
fn weak_body_ends_with_an_error_when_a_chunk_is_dropped() {
    for representation in [Representation::Identity, Representation::Gzip] {
        let mut table = table(1..=5_000, 250);
        let list = Arc::new(build(&table));
        let expected = body(&list, representation);
        let whole: Vec<_> = list.weak_body(representation).map(Result::unwrap).collect();
        assert!(whole.concat() == expected && whole.iter().all(|frame| frame.len() <= FRAME_BYTES));
        // chunks that the next version shares are sent, the changed one is not
        let mut weak = list.weak_body(representation);
        let mut new = Arc::clone(&list);
        apply(&mut new, &mut table, &BTreeMap::from([(4_000, Some(row(4_000, 300)))]));
        drop(list);
        let sent: Vec<_> = weak.by_ref().map_while(Result::ok).collect();
        let sent = sent.concat();
        assert!(sent.len() > expected.len() / 2 && expected.starts_with(&sent) && sent.len() < expected.len());
    }
}

/// Decoders that other programs use; those of Node only where it is installed. Each reads a gzip file on the standard
/// input.
const DECODERS: [(&str, [&str; 2]); 6] = [
    ("gzip", ["-t", "-"]),
    ("gzip", ["-dc", "-"]),
    ("python3", ["-c", "import sys, gzip; sys.stdout.buffer.write(gzip.decompress(sys.stdin.buffer.read()))"]),
    ("python3", ["-c", PYTHON_IN_PIECES]),
    ("node", ["-e", "process.stdin.pipe(require('zlib').createGunzip()).pipe(process.stdout)"]),
    ("node", ["-e", NODE_IN_PIECES]),
];
const PYTHON_IN_PIECES: &str = "
import sys, zlib
decoder = zlib.decompressobj(31)
while piece := sys.stdin.buffer.read1(1000):
    sys.stdout.buffer.write(decoder.decompress(piece))
assert decoder.eof and not decoder.unused_data
";
/// The decoder of `fetch`, as browsers have it.
const NODE_IN_PIECES: &str = "
const { buffer } = require('stream/consumers');
buffer(process.stdin).then(async (bytes) => {
  const stream = new DecompressionStream('gzip');
  const writer = stream.writable.getWriter();
  const write = async () => {
    for (let at = 0; at < bytes.length; at += 997) await writer.write(bytes.subarray(at, at + 997));
    await writer.close();
  };
  const [json] = await Promise.all([buffer(stream.readable), write()]);
  process.stdout.write(json);
});
";

/// Returns what a decoder writes, or `None` if it is not installed.
fn decode(program: &str, arguments: [&str; 2], gzip: &[u8]) -> Option<Vec<u8>> {
    let spawned = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = match spawned {
        Err(error) if error.kind() == ErrorKind::NotFound && program == "node" => return None,
        spawned => spawned.unwrap_or_else(|error| panic!("{program}: {error}")),
    };
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(gzip).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program} {arguments:?}");
    Some(output.stdout)
}

#[test]
fn gzip_body_is_read_by_other_decoders() {
    for rows in [0, 1, 5_000] {
        let table = table(1..=rows, 250);
        let gzip = body(&Arc::new(build(&table)), Representation::Gzip);
        for (program, arguments) in DECODERS {
            let expected = if arguments[0] == "-t" { String::new() } else { expected_json(&table) };
            let decoded = decode(program, arguments, &gzip);
            assert!(decoded.is_none_or(|json| json == expected.as_bytes()), "{program} {arguments:?}: {rows} rows");
        }
    }
}

#[test]
fn array_of_one_chunk_is_compressed_to_the_same_bytes() {
    for rows in [0, 1, 200] {
        let table = table(1..=rows, 250);
        let list = Arc::new(build(&table));
        assert!(list.chunks().len() <= 1);
        assert_eq!(compress_array(expected_json(&table).as_bytes()), body(&list, Representation::Gzip));
    }
}

/// A step of a history: rows that change, by id. `None` deletes.
fn step() -> impl Strategy<Value = BTreeMap<i64, Option<String>>> {
    let id = prop_oneof![4 => 0..400_i64, 1 => -50..2_000_i64, 1 => any::<i64>()];
    let bytes = prop_oneof![6 => 10..3_000_usize, 2 => 3_000..60_000_usize, 1 => 100_000..700_000_usize];
    let change = prop_oneof![3 => bytes.prop_map(Some), 2 => Just(None)];
    prop::collection::vec((id, change), 0..40).prop_map(|changes| {
        changes.into_iter().map(|(id, bytes)| (id, bytes.map(|bytes| row(id & 0xffff, bytes)))).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn changed_list_equals_list_from_scratch(
        rows in prop_oneof![Just(0_i64), 1..400_i64],
        bytes in 100..5_000_usize,
        steps in prop::collection::vec(step(), 1..6),
        compressed_only: bool,
    ) {
        let mut table = table(0..rows, bytes);
        let mut list = Arc::new(build(&table));
        for changes in steps {
            if compressed_only {
                list = without_json(&list);
            }
            apply(&mut list, &mut table, &changes);
            assert_equal(&list, &table);
        }
    }
}
