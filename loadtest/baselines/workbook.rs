//! rust_xlsxwriter alone: writes the workbook of an export from products in memory, without database and server.
//!
//!     cargo run --release --example workbook -- 1000000

use std::{io::BufWriter, time::Instant};

use testshop::products::{
    fields::Fields,
    files::xlsx::{MAX_SHEET_ROWS, ProductWorkbook},
    product::Product,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let count: i64 = std::env::args().nth(1).unwrap_or_default().parse()?;
    let tags = ["new", "eco", "steel", "winter"];
    let started = Instant::now();
    let directory = std::env::temp_dir();
    let mut workbook = ProductWorkbook::new(&directory, MAX_SHEET_ROWS, Fields::ALL)?;
    let (mut name, mut price) = (String::new(), String::new());
    for id in 1..=count {
        use std::fmt::Write;
        name.clear();
        price.clear();
        write!(name, "Sturdy Kettle {id}")?;
        write!(price, "{}.{:02}", id % 10_000, id % 100)?;
        workbook.write(&Product {
            id,
            name: &name,
            description: "Sturdy and made to last: the Kettle that our customers ask for.",
            category_name: "Kitchen",
            price: &price,
            created_at: jiff::Timestamp::from_second(1_691_496_000 + 60 * id)?,
            tags: tags[..usize::try_from(id % 5)?.min(4)].to_vec(),
        })?;
    }
    let file = tempfile::tempfile()?;
    workbook.save(BufWriter::with_capacity(256 * 1024, &file))?;
    println!("{count} products: {:.3} s, {} bytes", started.elapsed().as_secs_f64(), file.metadata()?.len());
    Ok(())
}
