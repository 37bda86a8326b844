//! What a row would change of the product that it names, or what is wrong with it.

use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use super::table::Row;
use crate::{
    error::FieldErrors,
    products::{
        files::{
            cells::Cell,
            columns::{CREATED_AT, DESCRIPTION, HEADER, ID, TAGS, join_tags},
            format::FileFormat,
            xlsx,
        },
        input::{self, ProductInput},
        product::Product,
    },
    timestamps,
    validation::MAX_ITEMS,
};

/// The fields of the columns of [`HEADER`].
const FIELDS: [&str; HEADER.len()] = ["id", "name", "description", "category_name", "price", "created_at", "tags"];
/// A description of more letters is told to be too long; one product by itself may have one of as many bytes.
const MAX_DESCRIPTION: usize = 256 * 1024;

/// A new product, or some columns of one that is there.
#[derive(Debug)]
pub(crate) struct Change {
    /// The product, if it is there.
    pub(crate) id: Option<i64>,
    /// The columns that change; the category by its name.
    pub(crate) input: ProductInput,
    /// Another time of creation.
    pub(crate) created_at: Option<Timestamp>,
}

impl Change {
    /// The category that the row names does not exist.
    pub(crate) fn no_such_category(&self) -> FieldErrors {
        self.input.no_such_category()
    }
}

/// The id that a row tells, if it tells one.
pub(crate) fn id_of(row: &Row, format: FileFormat) -> Result<Option<i64>, FieldErrors> {
    let id = match &row.cells[ID] {
        None => return Ok(None),
        Some(cell) if cell.is_empty() => return Ok(None),
        Some(Cell::Text(text)) => format.plain(text).trim().parse().ok(),
        Some(Cell::Number(number)) => xlsx::id_of(*number),
        Some(Cell::Date(_) | Cell::Other) => None,
    };
    id.map(Some).ok_or_else(|| FieldErrors::of(FIELDS[ID], "A valid integer is required."))
}

/// What a row changes of the product with its id, or the product that a row without an id makes; nothing when all is as the
/// row says already.
pub(crate) fn judge(
    row: &Row,
    format: FileFormat,
    stored: Option<&Product<'_>>,
) -> Result<Option<Change>, FieldErrors> {
    if row.stray {
        return Err(FieldErrors::of("non_field_errors", "A cell stands under no title."));
    }
    let RowDiff { mut body, created_at, mut errors } = RowDiff::of(row, format, stored);
    let input = if stored.is_some() {
        input::part(body)
    } else {
        if !body.contains_key("category_name") {
            // told by its name here, and not by its id
            errors.add("category_name", "This field is required.");
            body.insert("category_id".to_owned(), 0.into());
        }
        input::whole(body)
    };
    let input = match input {
        Ok(input) if errors.is_empty() => input,
        Ok(_) => return Err(errors),
        Err(faulty) => return Err(faulty.errors.and(errors)),
    };
    let mut change = Change { id: stored.map(|product| product.id), input, created_at };
    if let Some(product) = stored {
        change.forget_what_is(product);
        if change.is_nothing() {
            return Ok(None);
        }
    }
    Ok(Some(change))
}

/// What a row says that is not so already: as a client would have sent it, the time of creation, and what is wrong with the
/// cells themselves.
#[derive(Default)]
struct RowDiff {
    body: Map<String, Value>,
    created_at: Option<Timestamp>,
    errors: FieldErrors,
}

impl RowDiff {
    fn of(row: &Row, format: FileFormat, stored: Option<&Product<'_>>) -> Self {
        let (mut given, mut tags) = (Self::default(), String::new());
        if let Some(product) = stored {
            join_tags(product, &mut tags);
        }
        let written = stored.map(|product| format.cells(product, &tags));
        for (column, cell) in row.cells.iter().enumerate().skip(1) {
            let Some(cell) = cell else { continue };
            let was = written.as_ref().map(|written| &written[column]);
            if was.is_some_and(|was| cell.same(was)) {
                continue;
            }
            if let Err(words) = given.take(column, cell, was, stored, format) {
                given.errors.add(FIELDS[column], words);
            }
        }
        given
    }

    fn take(
        &mut self,
        column: usize,
        cell: &Cell<'_>,
        was: Option<&Cell<'_>>,
        stored: Option<&Product<'_>>,
        format: FileFormat,
    ) -> Result<(), String> {
        if was.is_some_and(|was| format.is_cut(was, cell)) {
            return Err("This text was cut when it was exported; change it elsewhere.".to_owned());
        }
        let value = match column {
            CREATED_AT if cell.is_empty() && stored.is_none() => return Ok(()),
            CREATED_AT => {
                self.created_at = Some(moment(cell, format)?);
                return Ok(());
            }
            TAGS if stored.is_some_and(|product| product.tags.iter().any(|tag| tag.contains(','))) => {
                return Err("A tag of this product has a comma; change its tags elsewhere.".to_owned());
            }
            TAGS => split(cell, format),
            _ => value(cell, format),
        };
        if column == DESCRIPTION && value.as_str().is_some_and(|text| text.chars().nth(MAX_DESCRIPTION).is_some()) {
            return Err(format!("Ensure this field has no more than {MAX_DESCRIPTION} characters."));
        }
        self.body.insert(FIELDS[column].to_owned(), value);
        Ok(())
    }
}

impl Change {
    /// Leaves out what the product has already, though the cell looked different: spaces around a name, `5` for `5.00`.
    fn forget_what_is(&mut self, product: &Product<'_>) {
        let Self { input, created_at, .. } = self;
        let number = |text: &str| text.parse::<f64>().ok();
        input.name.take_if(|name| name == product.name);
        input.description.take_if(|description| description == product.description);
        input.category_name.take_if(|category| category == product.category_name);
        input.price.take_if(|price| number(price) == number(product.price));
        input.tags.take_if(|tags| *tags == product.tags);
        // programs that show milliseconds keep no more than that
        let shown = xlsx::as_shown(product.created_at);
        created_at.take_if(|moment| *moment == product.created_at || Some(*moment) == shown);
    }

    fn is_nothing(&self) -> bool {
        let ProductInput { name, description, price, category_id: _, category_name, tags } = &self.input;
        let texts = [name, description, price, category_name];
        texts.iter().all(|text| text.is_none()) && tags.is_none() && self.created_at.is_none()
    }
}

/// What a client would have sent for a cell.
fn value(cell: &Cell<'_>, format: FileFormat) -> Value {
    match cell {
        Cell::Text(text) => Value::String(format.plain(text).to_owned()),
        Cell::Number(number) | Cell::Date(number) => {
            plain_number(*number).parse::<Number>().map_or(Value::Bool(true), Value::Number)
        }
        Cell::Other => Value::Bool(true),
    }
}

/// A number as a spreadsheet shows it: with the 15 digits that it is sure of, without an exponent.
fn plain_number(number: f64) -> String {
    let sure: f64 = format!("{number:.14e}").parse().unwrap_or(number);
    sure.to_string()
}

/// The tags of a cell: one more than there may be is enough to know that.
fn split(cell: &Cell<'_>, format: FileFormat) -> Value {
    match value(cell, format) {
        Value::String(text) if text.trim().is_empty() => Value::Array(Vec::new()),
        Value::String(text) => text.split(',').take(MAX_ITEMS + 1).map(Value::from).collect(),
        other => Value::Array(vec![other]),
    }
}

/// The moment of a cell.
fn moment(cell: &Cell<'_>, format: FileFormat) -> Result<Timestamp, &'static str> {
    let moment = match cell {
        Cell::Text(text) if text.is_empty() => return Err("This field may not be null."),
        Cell::Text(text) => {
            let text = format.plain(text).trim();
            // a spreadsheet's moment has no offset
            timestamps::parse(text).or_else(|| timestamps::parse(&format!("{text}Z")))
        }
        Cell::Number(days) | Cell::Date(days) => xlsx::moment(*days),
        Cell::Other => None,
    };
    moment.ok_or(timestamps::WRONG_FORMAT)
}
