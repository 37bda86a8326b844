//! Parses and validates the JSON body of a product.

use serde_json::{Map, Value};

use super::product::PRICE_RULE;
use crate::{
    error::FieldErrors,
    validation::{Fields, StringRule, text},
};

const NAME_RULE: StringRule = text(100);
const DESCRIPTION_RULE: StringRule =
    StringRule { min_length: 0, max_length: usize::MAX, allow_blank: true, trim: true };

/// The fields of a product; `None` for a field that is absent from the body.
#[derive(Debug)]
pub(crate) struct ProductInput {
    /// Trimmed, not blank.
    pub(crate) name: Option<String>,
    /// Trimmed.
    pub(crate) description: Option<String>,
    /// A decimal as text.
    pub(crate) price: Option<String>,
    pub(crate) category_id: Option<i64>,
    /// Mutually exclusive with `category_id`.
    pub(crate) category_name: Option<String>,
    /// Sorted and distinct.
    pub(crate) tags: Option<Vec<String>>,
}

/// The validation errors of a body, and its valid fields.
#[derive(Debug)]
pub(crate) struct InvalidInput {
    pub(crate) errors: FieldErrors,
    pub(crate) input: ProductInput,
}

/// Parses the body of a create or a full update: absent optional fields get their defaults.
pub(crate) fn parse_full(body: Map<String, Value>) -> Result<ProductInput, Box<InvalidInput>> {
    let has_category = body.contains_key("category_id") || body.contains_key("category_name");
    let mut fields = Fields::new(body);
    let input = parse(&mut fields);
    if !has_category {
        fields.add_error("category_id", "This field is required.");
    }
    let input = ProductInput {
        description: Some(input.description.unwrap_or_default()),
        tags: Some(input.tags.unwrap_or_default()),
        ..input
    };
    finish(fields, input)
}

/// Parses the body of a partial update: absent fields stay `None`.
pub(crate) fn parse_partial(body: Map<String, Value>) -> Result<ProductInput, Box<InvalidInput>> {
    let mut fields = Fields::partial(body);
    let input = parse(&mut fields);
    finish(fields, input)
}

fn finish(fields: Fields, input: ProductInput) -> Result<ProductInput, Box<InvalidInput>> {
    let errors = fields.into_errors();
    if errors.is_empty() { Ok(input) } else { Err(Box::new(InvalidInput { errors, input })) }
}

fn parse(fields: &mut Fields) -> ProductInput {
    if fields.contains("category_id") && fields.contains("category_name") {
        fields.add_error("category_name", "Give either category_id or category_name, not both.");
    }
    ProductInput {
        name: fields.text("name", NAME_RULE),
        description: fields.optional_text("description", DESCRIPTION_RULE),
        price: fields.decimal("price", PRICE_RULE),
        category_id: fields.optional_id("category_id"),
        category_name: fields.optional_text("category_name", NAME_RULE),
        tags: fields.optional_texts("tags", NAME_RULE).map(|mut tags| {
            tags.sort_unstable();
            tags.dedup();
            tags
        }),
    }
}

impl ProductInput {
    /// Returns the validation error for a category that does not exist.
    pub(crate) fn category_not_found(&self) -> FieldErrors {
        match (self.category_id, &self.category_name) {
            (Some(id), _) => {
                FieldErrors::single("category_id", format!("Invalid pk \"{id}\" - object does not exist."))
            }
            (None, name) => category_name_not_found(name.as_deref().unwrap_or_default()),
        }
    }
}

/// Returns the validation error for the name of a category that does not exist.
pub(crate) fn category_name_not_found(name: &str) -> FieldErrors {
    FieldErrors::single("category_name", format!("Object with name={name} does not exist."))
}
