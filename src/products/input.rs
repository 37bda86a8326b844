//! What a product may be made of.

use serde_json::{Map, Value};

use super::product::PRICE;
use crate::{
    error::FieldErrors,
    validation::{Fields, StringRule, text},
};

const NAME: StringRule = text(100);
const DESCRIPTION: StringRule = StringRule { min: 0, max: usize::MAX, blank: true, trim: true };

/// The columns that a body gives; `None`: it does not name them.
#[derive(Debug)]
pub(crate) struct ProductInput {
    /// Trimmed, not blank.
    pub(crate) name: Option<String>,
    /// Trimmed.
    pub(crate) description: Option<String>,
    /// Decimal text.
    pub(crate) price: Option<String>,
    /// The category by its id.
    pub(crate) category_id: Option<i64>,
    /// The category by its name; never together with the id.
    pub(crate) category_name: Option<String>,
    /// Without repetition.
    pub(crate) tags: Option<Vec<String>>,
}

/// A body with faults, and what of it is in order.
#[derive(Debug)]
pub(crate) struct InvalidInput {
    /// What is wrong.
    pub(crate) errors: FieldErrors,
    /// The rest.
    pub(crate) input: ProductInput,
}

/// A body that tells everything: what it does not name gets its default.
pub(crate) fn whole(body: Map<String, Value>) -> Result<ProductInput, Box<InvalidInput>> {
    let named = body.contains_key("category_id") || body.contains_key("category_name");
    let mut fields = Fields::new(body);
    let input = read(&mut fields);
    if !named {
        fields.fault("category_id", "This field is required.");
    }
    let input = ProductInput {
        description: Some(input.description.unwrap_or_default()),
        tags: Some(input.tags.unwrap_or_default()),
        ..input
    };
    finish(fields, input)
}

/// A body that tells what is to change.
pub(crate) fn part(body: Map<String, Value>) -> Result<ProductInput, Box<InvalidInput>> {
    let mut fields = Fields::partial(body);
    let input = read(&mut fields);
    finish(fields, input)
}

fn finish(fields: Fields, input: ProductInput) -> Result<ProductInput, Box<InvalidInput>> {
    let errors = fields.faults();
    if errors.is_empty() { Ok(input) } else { Err(Box::new(InvalidInput { errors, input })) }
}

fn read(fields: &mut Fields) -> ProductInput {
    if fields.names("category_id") && fields.names("category_name") {
        fields.fault("category_name", "Give either category_id or category_name, not both.");
    }
    ProductInput {
        name: fields.text("name", NAME),
        description: fields.optional_text("description", DESCRIPTION),
        price: fields.decimal("price", PRICE),
        category_id: fields.optional_id("category_id"),
        category_name: fields.optional_text("category_name", NAME),
        tags: fields.optional_texts("tags", NAME).map(|mut tags| {
            tags.sort_unstable();
            tags.dedup();
            tags
        }),
    }
}

impl ProductInput {
    /// The category that was asked for does not exist.
    pub(crate) fn no_such_category(&self) -> FieldErrors {
        match (self.category_id, &self.category_name) {
            (Some(id), _) => FieldErrors::of("category_id", format!("Invalid pk \"{id}\" - object does not exist.")),
            (None, name) => {
                let name = name.as_deref().unwrap_or_default();
                FieldErrors::of("category_name", format!("Object with name={name} does not exist."))
            }
        }
    }
}
