//! The fields of a product: keys of its JSON, and columns of an exported file.

/// A field of a product, in the order of the JSON keys and of the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Id,
    Name,
    Description,
    CategoryName,
    Price,
    CreatedAt,
    Tags,
}

impl Field {
    pub(crate) const ALL: [Self; 7] =
        [Self::Id, Self::Name, Self::Description, Self::CategoryName, Self::Price, Self::CreatedAt, Self::Tags];

    /// Returns the JSON key.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Name => "name",
            Self::Description => "description",
            Self::CategoryName => "category_name",
            Self::Price => "price",
            Self::CreatedAt => "created_at",
            Self::Tags => "tags",
        }
    }

    /// Returns the field with this JSON key.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }
}

/// A set of fields, by default all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields(u8);

impl Fields {
    pub const ALL: Self = Self((1 << Field::ALL.len()) - 1);

    pub(crate) fn contains(self, field: Field) -> bool {
        self.0 & 1 << field as u8 != 0
    }

    /// Returns the fields in their order.
    pub(crate) fn iter(self) -> impl Iterator<Item = Field> {
        Field::ALL.into_iter().filter(move |field| self.contains(*field))
    }

    /// Returns the value of the parameter `fields`: the names in their order, separated by commas.
    pub(crate) fn param_value(self) -> String {
        self.iter().map(Field::name).collect::<Vec<_>>().join(",")
    }
}

impl Default for Fields {
    fn default() -> Self {
        Self::ALL
    }
}

impl FromIterator<Field> for Fields {
    fn from_iter<T: IntoIterator<Item = Field>>(fields: T) -> Self {
        Self(fields.into_iter().fold(0, |bits, field| bits | 1 << field as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_has_the_order_of_the_fields() {
        let some: Fields = [Field::Price, Field::Id, Field::Price].into_iter().collect();
        assert_eq!(some.param_value(), "id,price");
        assert_eq!(Fields::default().param_value(), "id,name,description,category_name,price,created_at,tags");
        assert_eq!(Field::ALL.into_iter().collect::<Fields>(), Fields::ALL);
        for (index, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!((field as usize, Field::from_name(field.name())), (index, Some(field)));
        }
    }
}
