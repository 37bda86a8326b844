//! Reads the rows of a file in either format.

use std::{fs::File, sync::Arc};

use tokio::sync::mpsc;

use super::{
    budget::MemoryBudget,
    cancel::CancellationToken,
    csv,
    table::{Abort, Batch, Table},
    xlsx,
};
use crate::{error::Result, products::files::format::FileFormat};

/// Sends all rows to `batches`. Ends early without an error when the receiver is dropped.
pub(crate) fn read(
    file: &Arc<File>,
    format: FileFormat,
    batches: mpsc::Sender<Batch>,
    budget: &MemoryBudget,
    token: &CancellationToken,
) -> Result<()> {
    let mut table = Table::new(batches, budget);
    let result = match format {
        FileFormat::Xlsx => xlsx::read(file, budget, token, &mut table),
        FileFormat::Csv => csv::read(file, token, &mut table),
    };
    match result.and_then(|()| table.finish()) {
        Ok(()) | Err(Abort::Cancelled) => Ok(()),
        Err(Abort::Invalid(error)) => Err(error),
    }
}
