//! Reads the rows of a file, whatever its format, and hands them on in batches.

use std::{fs::File, sync::Arc};

use tokio::sync::mpsc;

use super::{
    cancel::Cancel,
    csv,
    table::{Abort, Batch, Table},
    xlsx,
};
use crate::{error::Result, products::files::format::FileFormat};

/// Reads all rows. Ends early, and well, when nobody takes them any more.
pub(crate) fn read(file: &Arc<File>, format: FileFormat, batches: mpsc::Sender<Batch>, cancel: &Cancel) -> Result<()> {
    let mut table = Table::new(batches);
    let read = match format {
        FileFormat::Xlsx => xlsx::read(file, cancel, &mut table),
        FileFormat::Csv => csv::read(file, cancel, &mut table),
    };
    match read.and_then(|()| table.finish()) {
        Ok(()) | Err(Abort::Left) => Ok(()),
        Err(Abort::Fault(error)) => Err(error),
    }
}
