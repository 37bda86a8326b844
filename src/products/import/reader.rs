//! Reads the rows of a file in either format.

use tokio::sync::mpsc;

use super::{
    budget::MemoryBudget,
    cancel::CancellationToken,
    content::Content,
    csv,
    options::UnknownColumns,
    row::Batch,
    table::{Abort, Table},
    xlsx,
};
use crate::{error::Result, products::files::format::FileFormat};

/// Sends all rows to `batches`. Ends early without an error when the receiver is dropped.
pub(crate) fn read(
    content: &Content,
    unknown_columns: UnknownColumns,
    batches: mpsc::Sender<Batch>,
    budget: &MemoryBudget,
    token: &CancellationToken,
) -> Result<()> {
    let mut table = Table::new(batches, budget, unknown_columns);
    let result = match content.format {
        FileFormat::Xlsx => xlsx::read(&content.range, budget, token, &mut table),
        FileFormat::Csv => csv::read(&content.range, content.charset, token, &mut table),
    };
    match result.and_then(|()| table.finish()) {
        Ok(()) | Err(Abort::Cancelled) => Ok(()),
        Err(Abort::Invalid(error)) => Err(error),
    }
}
