//! The title row of a file or sheet: which of its columns holds what.

use super::{error::import_error, options::UnknownColumns, place::cell_name};
use crate::{
    error::Result,
    products::files::{
        cells::{Cell, trim_blanks},
        columns::HEADER,
    },
};

/// Other titles of the columns of [`HEADER`], without regard to case: the names of the API.
const OTHER_TITLES: [&[&str]; HEADER.len()] = [&[], &[], &[], &["category_name"], &[], &["created_at"], &[]];
const MAX_TITLE_CHARACTERS: usize = 100;
/// Columns of an Excel sheet.
pub(crate) const MAX_COLUMNS: u32 = 16_384;
/// Separators of titles that were not split.
const SEPARATORS: [(char, &str); 4] = [('|', "|"), (';', ";"), ('\t', "a tab"), (',', ",")];

/// Returns the index into [`HEADER`] of a title.
pub(crate) fn column_of_title(title: &str) -> Option<usize> {
    let title = trim_blanks(title);
    let is_title = |known: &str| {
        // a no-break space stands for a space
        let characters = title.chars().map(|character| if character == '\u{a0}' { ' ' } else { character });
        characters
            .map(|character| character.to_ascii_lowercase())
            .eq(known.chars().map(|known| known.to_ascii_lowercase()))
    };
    (0..HEADER.len()).find(|index| is_title(HEADER[*index]) || OTHER_TITLES[*index].iter().any(|known| is_title(known)))
}

/// The cells of a title row.
#[derive(Default)]
pub(crate) struct TitleRow {
    /// The number of the row, from 1; 0 before the first title.
    pub(crate) row: u32,
    /// The column of the file, from 0, for each column of [`HEADER`].
    columns: [Option<u32>; HEADER.len()],
    /// Bits of the columns whose title is unknown.
    unknown: Vec<u64>,
    first_unknown: Option<(u32, String)>,
    /// The second column with a title that occurs twice.
    duplicate: Option<(u32, usize)>,
    title_count: usize,
    /// The separator that an unknown title contains together with known titles.
    separator: Option<&'static str>,
}

impl TitleRow {
    /// Adds a cell that is not blank.
    pub(crate) fn add(&mut self, row: u32, column: u32, cell: &Cell<'_>) {
        self.row = row;
        self.title_count += 1;
        let text = title_text(cell);
        match column_of_title(&text) {
            Some(index) => {
                if self.columns[index].replace(column).is_some() {
                    self.duplicate.get_or_insert((column, index));
                }
            }
            None => self.add_unknown(column, &text),
        }
    }

    fn add_unknown(&mut self, column: u32, title: &str) {
        if column < MAX_COLUMNS {
            let word = column as usize / 64;
            if self.unknown.len() <= word {
                self.unknown.resize(word + 1, 0);
            }
            self.unknown[word] |= 1 << (column % 64);
        }
        if self.first_unknown.is_none() {
            let has_titles = |separator: char| title.split(separator).filter_map(column_of_title).count() > 1;
            self.separator = SEPARATORS.iter().find(|(separator, _)| has_titles(*separator)).map(|(_, name)| *name);
            self.first_unknown = Some((column, title.chars().take(MAX_TITLE_CHARACTERS).collect()));
        }
    }

    /// Returns whether the row has a known title.
    pub(crate) fn is_known(&self) -> bool {
        self.columns.iter().any(Option::is_some)
    }

    /// Returns the first unknown title, or an empty text.
    pub(crate) fn first_unknown(&self) -> &str {
        self.first_unknown.as_ref().map_or("", |(_, title)| title)
    }

    /// Returns the columns. Fails for unknown and duplicate titles. `sheet` is `None` for a CSV file.
    pub(crate) fn finish(self, sheet: Option<&str>, unknown_columns: UnknownColumns) -> Result<Columns> {
        if let Some((column, index)) = self.duplicate {
            let place = cell_name(sheet, self.row, column);
            return Err(import_error(format!("{place}: the column \"{}\" occurs twice", HEADER[index])));
        }
        match &self.first_unknown {
            Some((column, title)) if unknown_columns == UnknownColumns::Refuse || !self.is_known() => {
                let place = cell_name(sheet, self.row, *column);
                Err(import_error(format!("{place}: the title \"{title}\" is unknown. {}", self.advice())))
            }
            _ => Ok(Columns { columns: self.columns, unknown: self.unknown }),
        }
    }

    /// Returns what to do about an unknown title.
    fn advice(&self) -> String {
        let known = HEADER.join(", ");
        match self.separator {
            Some(separator) if self.title_count == 1 => {
                format!("The titles seem to be separated by {separator}. Separate them by commas, semicolons or tabs")
            }
            _ if self.is_known() => format!("The known titles are {known}. unknown_columns=ignore skips other columns"),
            _ => format!("The first row that is not empty must hold the titles: {known}"),
        }
    }
}

/// Returns the text that a spreadsheet shows for a title.
fn title_text(cell: &Cell<'_>) -> String {
    match cell {
        Cell::Text(text) => trim_blanks(text).to_owned(),
        Cell::Number(number) | Cell::Date(number) => number.to_string(),
        Cell::Unsupported => "(no text)".to_owned(),
        Cell::Unreadable(reason) => format!("({reason})"),
    }
}

/// What the columns of a table hold.
pub(crate) struct Columns {
    /// The column of the file, from 0, for each column of [`HEADER`].
    pub(crate) columns: [Option<u32>; HEADER.len()],
    /// Bits of the columns that are ignored.
    unknown: Vec<u64>,
}

impl Columns {
    /// Returns the index into [`HEADER`] of a column.
    pub(crate) fn index(&self, column: u32) -> Option<usize> {
        self.columns.iter().position(|mapped| *mapped == Some(column))
    }

    /// Returns whether a column has a title that is unknown.
    pub(crate) fn is_ignored(&self, column: u32) -> bool {
        self.unknown.get(column as usize / 64).is_some_and(|word| word & (1 << (column % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_those_of_the_export_or_the_api() {
        for (title, column) in [
            ("ID", 0),
            ("\u{feff}id ", 0),
            ("NAME\u{a0}", 1),
            ("description", 2),
            ("Category", 3),
            ("category_name", 3),
            ("price", 4),
            ("created AT", 5),
            ("Created\u{a0}at", 5),
            ("created_at", 5),
            ("Tags", 6),
        ] {
            assert_eq!(column_of_title(title), Some(column), "{title:?}");
        }
        for title in ["", "category id", "created  at", "prices"] {
            assert_eq!(column_of_title(title), None, "{title:?}");
        }
    }

    #[test]
    fn ignored_columns_are_those_with_unknown_titles() {
        let mut titles = TitleRow::default();
        for (column, title) in [(0, "Name"), (3, "Colour"), (16_383, "x"), (16_384, "y")] {
            titles.add(1, column, &Cell::text(title));
        }
        let columns = titles.finish(None, UnknownColumns::Ignore).unwrap_or_else(|_| panic!("one title is known"));
        let ignored = [0, 2, 3, 16_383, 16_384, u32::MAX].map(|column| columns.is_ignored(column));
        assert_eq!(ignored, [false, false, true, true, false, false]);
    }
}
