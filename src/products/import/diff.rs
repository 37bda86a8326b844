//! Compares a row of the file with the stored product.

use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::{created_at::ShownTimestamp, numbers::whole_number, place::column_name, row::Row};
use crate::{
    error::FieldErrors,
    products::{
        fields::Field,
        files::{
            cells::{Cell, trim_blanks},
            columns::{CREATED_AT, DESCRIPTION, ID, TAGS, join_tags},
            format::FileFormat,
            xlsx,
        },
        input::{self, InvalidInput, ProductInput},
        product::Product,
    },
    validation::MAX_ITEMS,
};

/// The API limits a description by the bytes of the request body only, by default the same number.
const MAX_DESCRIPTION_CHARACTERS: usize = 256 * 1024;

/// What a row is about.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    Stored(&'a Product<'a>),
    /// A new product, with the id that the row has.
    New(Option<i64>),
}

/// A new product, or the changed columns of a stored one.
#[derive(Debug)]
pub(crate) struct Change {
    /// `None` for a new product whose id is generated.
    pub(crate) id: Option<i64>,
    pub(crate) is_new: bool,
    /// The columns to write, with the category by its name.
    pub(crate) input: ProductInput,
    pub(crate) created_at: Option<Timestamp>,
}

impl Change {
    /// Removes values that equal the stored ones though their cells differ, such as `5` for `5.00`.
    fn drop_unchanged(&mut self, product: &Product<'_>) {
        let Self { input, .. } = self;
        let number = |text: &str| text.parse::<f64>().ok();
        input.name.take_if(|name| name == product.name);
        input.description.take_if(|description| description == product.description);
        input.category_name.take_if(|category| category == product.category_name);
        input.price.take_if(|price| number(price) == number(product.price));
        input.tags.take_if(|tags| *tags == product.tags);
    }

    fn is_empty(&self) -> bool {
        let ProductInput { name, description, price, category_id: _, category_name, tags } = &self.input;
        let texts = [name, description, price, category_name];
        texts.iter().all(|text| text.is_none()) && tags.is_none() && self.created_at.is_none()
    }
}

/// Returns the id of a row, or `None` for a row that creates a product.
pub(crate) fn row_id(row: &Row, format: FileFormat) -> Result<Option<i64>, FieldErrors> {
    let id = match &row.cells[ID] {
        None => return Ok(None),
        Some(cell) if cell.is_blank() => return Ok(None),
        Some(Cell::Text(text)) => whole_number(trim_blanks(&format.strip_formula_guards(text))),
        Some(Cell::Number(number)) => xlsx::id_from_number(*number),
        Some(Cell::Unreadable(message)) => return Err(FieldErrors::single(Field::Id.name(), *message)),
        Some(Cell::Date(_) | Cell::Unsupported) => None,
    };
    id.map(Some).ok_or_else(|| FieldErrors::single(Field::Id.name(), "A valid integer is required."))
}

/// The errors of a row.
#[derive(Debug)]
pub(super) struct InvalidRow {
    pub(super) errors: FieldErrors,
    /// The category of the row; one that does not exist is a further error.
    pub(super) category_name: Option<String>,
}

impl From<FieldErrors> for InvalidRow {
    fn from(errors: FieldErrors) -> Self {
        Self { errors, category_name: None }
    }
}

/// Returns what a row changes of its target, or `None` when it equals the stored product.
pub(super) fn diff(row: &Row, format: FileFormat, target: Target<'_>) -> Result<Option<Change>, InvalidRow> {
    if let Some(column) = row.untitled_column {
        let message = format!("A cell is in a column without a title: column {}.", column_name(column, format));
        return Err(FieldErrors::single("non_field_errors", message).into());
    }
    let RowDiff { mut body, created_at, mut errors } = RowDiff::new(row, format, target);
    let (input, id, is_new) = match target {
        Target::Stored(product) => (input::parse_partial(body), Some(product.id), false),
        Target::New(id) => {
            if !body.contains_key("category_name") {
                if !errors.has("category_name") {
                    errors.add("category_name", "This field is required.");
                }
                // suppresses the same error for `category_id`, which a file does not have
                body.insert("category_id".to_owned(), 0.into());
            }
            (input::parse_full(body), id, true)
        }
    };
    let input = match input {
        Ok(input) if errors.is_empty() => input,
        Ok(input) => return Err(InvalidRow { errors, category_name: input.category_name }),
        Err(invalid) => {
            let InvalidInput { errors: others, input } = *invalid;
            return Err(InvalidRow { errors: others.merge(errors), category_name: input.category_name });
        }
    };
    let mut change = Change { id, is_new, input, created_at };
    if let Target::Stored(product) = target {
        change.drop_unchanged(product);
        if change.is_empty() {
            return Ok(None);
        }
    }
    Ok(Some(change))
}

/// The cells of a row that differ from the export of the stored product.
#[derive(Default)]
struct RowDiff {
    /// The values in the form of a request body; they are not validated.
    body: Map<String, Value>,
    created_at: Option<Timestamp>,
    errors: FieldErrors,
}

impl RowDiff {
    fn new(row: &Row, format: FileFormat, target: Target<'_>) -> Self {
        let (mut diff, mut tags) = (Self::default(), String::new());
        let exported_cells = match target {
            Target::Stored(product) => {
                join_tags(product, &mut tags);
                Some(format.cells(product, &tags))
            }
            Target::New(_) => None,
        };
        for (column, cell) in row.cells.iter().enumerate().skip(1) {
            let Some(cell) = cell else { continue };
            let exported = exported_cells.as_ref().map(|cells| &cells[column]);
            if exported.is_some_and(|exported| cell.equals(exported)) {
                continue;
            }
            if let Err(message) = diff.add_cell(column, cell, exported, target, format) {
                diff.errors.add(Field::ALL[column].name(), message);
            }
        }
        diff
    }

    fn add_cell(
        &mut self,
        column: usize,
        cell: &Cell<'_>,
        exported: Option<&Cell<'_>>,
        target: Target<'_>,
        format: FileFormat,
    ) -> Result<(), String> {
        if exported.is_some_and(|exported| format.is_truncated(exported, cell)) {
            return Err("The export truncated this text. Change it through the API.".to_owned());
        }
        if let Cell::Unreadable(message) = cell {
            return Err((*message).to_owned());
        }
        let value = match column {
            CREATED_AT => {
                self.created_at = changed_timestamp(cell, target, format)?;
                return Ok(());
            }
            TAGS if matches!(target, Target::Stored(product) if product.tags.iter().any(|tag| tag.contains(','))) => {
                return Err("A tag of this product contains a comma. Change its tags through the API.".to_owned());
            }
            TAGS => split_tags(cell, format),
            _ => json_value(cell, format),
        };
        let is_too_long = |text: &str| text.chars().nth(MAX_DESCRIPTION_CHARACTERS).is_some();
        if column == DESCRIPTION && value.as_str().is_some_and(is_too_long) {
            return Err(format!("Ensure this field has no more than {MAX_DESCRIPTION_CHARACTERS} characters."));
        }
        self.body.insert(Field::ALL[column].name().to_owned(), value);
        Ok(())
    }
}

/// Returns the value that a request body has for a cell. `true` stands for a value that no field accepts.
fn json_value(cell: &Cell<'_>, format: FileFormat) -> Value {
    match cell {
        Cell::Text(text) => Value::String(format.strip_formula_guards(text).into_owned()),
        Cell::Number(number) | Cell::Date(number) => {
            format_number(*number).parse::<Number>().map_or(Value::Bool(true), Value::Number)
        }
        Cell::Unsupported | Cell::Unreadable(_) => Value::Bool(true),
    }
}

/// Formats a number with the 15 significant digits of spreadsheets and without an exponent.
fn format_number(number: f64) -> String {
    let rounded: f64 = format!("{number:.14e}").parse().unwrap_or(number);
    rounded.to_string()
}

/// Returns the tags of a cell. One more than the limit is enough for the validation error.
fn split_tags(cell: &Cell<'_>, format: FileFormat) -> Value {
    match json_value(cell, format) {
        Value::String(text) if text.trim().is_empty() => Value::Array(Vec::new()),
        Value::String(text) => text.split(',').take(MAX_ITEMS + 1).map(Value::from).collect(),
        other => Value::Array(vec![other]),
    }
}

/// Returns the moment of a cell; `None` if the cell is blank or shows the stored moment.
fn changed_timestamp(
    cell: &Cell<'_>,
    target: Target<'_>,
    format: FileFormat,
) -> Result<Option<Timestamp>, &'static str> {
    if matches!(cell, Cell::Text(text) if trim_blanks(text).is_empty()) {
        return Ok(None);
    }
    // a row that brings its own id restores an exported product, microseconds included
    let cell = ShownTimestamp::parse(cell, format, matches!(target, Target::New(Some(_))))?;
    match target {
        Target::Stored(product) if cell.shows(product.created_at) => Ok(None),
        _ => cell.timestamp().map(Some),
    }
}
