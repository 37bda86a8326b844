// The texts of the page in English and Russian, and how numbers and dates are written. The first language of the
// browser that is one of these counts.

import { RequestError } from "./session.js";

const TEXTS = {
  add_category: ["New category", "Новая категория"],
  add_product: ["New product", "Новый товар"],
  add_tag: ["New tag", "Новая метка"],
  all_match: ["all of them", "все сразу"],
  any_matches: ["any of them", "любая из них"],
  cancel: ["Cancel", "Отмена"],
  categories: ["Categories", "Категории"],
  category: ["Category", "Категория"],
  category_name: ["Category", "Категория"],
  changed_by_other: ["Somebody else has changed this meanwhile", "Это уже изменил кто-то другой"],
  choose_versions: [
    "Choose what to keep for each field, then save again.",
    "Выберите, что оставить в каждом поле, и сохраните ещё раз.",
  ],
  clear_filters: ["Clear filters", "Сбросить фильтры"],
  close: ["Close", "Закрыть"],
  column: ["Column", "Столбец"],
  connected: ["Live", "Обновляется"],
  connecting: ["Connecting …", "Подключение …"],
  connection_lost: ["Connection lost, retrying …", "Связь потеряна, повтор …"],
  continue_editing: ["Continue editing", "Продолжить правку"],
  create_categories: ["Create missing categories", "Создавать недостающие категории"],
  created: ["Created", "Создано"],
  created_after: ["Created from", "Создан с"],
  created_at: ["Created at", "Создан"],
  created_before: ["Created until", "Создан по"],
  delete: ["Delete", "Удалить"],
  delete_question: ["Delete “{name}”?", "Удалить «{name}»?"],
  deleted: ["“{name}” was deleted.", "«{name}»: удалено."],
  deleted_by_other: ["This no longer exists: somebody has deleted it.", "Этого больше нет: кто-то удалил."],
  description: ["Description", "Описание"],
  discard: ["Discard", "Отбросить"],
  discard_question: ["Discard your changes?", "Отбросить изменения?"],
  download_errors: ["Download errors as CSV", "Скачать ошибки в CSV"],
  drop_file: ["Drop an XLSX or CSV file here, or select one", "Перетащите сюда файл XLSX или CSV или выберите его"],
  dry_run: ["Check the file", "Проверить файл"],
  edit: ["Edit", "Изменить"],
  edit_product: ["Edit product {id}", "Товар {id}"],
  encoding: ["Encoding of a CSV file", "Кодировка файла CSV"],
  encoding_auto: ["UTF-8, or as the file says", "UTF-8 или указанная в файле"],
  errors_omitted: ["Errors not listed: {count}", "Ошибок вне списка: {count}"],
  export: ["Export", "Выгрузить"],
  expired: ["Your session has ended", "Сеанс завершён"],
  expired_details: [
    "Log in again to continue. Nothing that you typed is lost.",
    "Войдите снова, чтобы продолжить. Введённое сохранено.",
  ],
  failed: ["The server could not do that: {message}", "Сервер не смог это сделать: {message}"],
  field: ["Field", "Поле"],
  file_changed: ["The file has changed or is gone: select it again.", "Файл изменён или удалён: выберите его снова."],
  filter: ["Filter", "Фильтр"],
  filters: ["Filters", "Фильтры"],
  if_rows_invalid: ["If rows are invalid", "Если в строках ошибки"],
  if_id_missing: ["If no product has the ID of a row", "Если товара с таким ID нет"],
  if_columns_unknown: ["If columns are unknown", "Если столбцы неизвестны"],
  id: ["ID", "ID"],
  ignore_columns: ["ignore them", "пропустить их"],
  import: ["Import", "Загрузка"],
  import_abort: ["import nothing", "не загружать ничего"],
  import_create: ["create the product", "создать товар"],
  import_done: ["The import is complete.", "Загрузка завершена."],
  import_error: ["the row is invalid", "строка ошибочна"],
  import_now: ["Import this file", "Загрузить этот файл"],
  import_preview: ["What the import would do", "Что сделает загрузка"],
  import_rejected: ["Nothing was imported.", "Ничего не загружено."],
  import_skip: ["import the others", "загрузить остальные"],
  in_use: [
    "Products use this category. Give them another category first.",
    "Эта категория есть у товаров. Сначала смените её у них.",
  ],
  load_again: ["Try again", "Повторить"],
  loading: ["Loading …", "Загрузка …"],
  log_in: ["Log in", "Войти"],
  log_out: ["Log out", "Выйти"],
  message: ["Message", "Сообщение"],
  mine: ["Yours", "Ваше"],
  name: ["Name", "Название"],
  nothing_found: ["Nothing matches.", "Ничего не найдено."],
  not_saved: ["Not saved: see the marked fields.", "Не сохранено: см. отмеченные поля."],
  offline: ["The server cannot be reached.", "Сервер недоступен."],
  other_changes: ["New or changed products: {count}", "Новых или изменённых товаров: {count}"],
  page: ["Admin page", "Управление магазином"],
  password: ["Password", "Пароль"],
  preparing_file: ["Preparing the file …", "Файл готовится …"],
  price: ["Price", "Цена"],
  price_max: ["Price to", "Цена до"],
  price_min: ["Price from", "Цена от"],
  products: ["Products", "Товары"],
  read_only: ["You can look and export; only staff can edit.", "Вам доступны просмотр и выгрузка; правка — персоналу."],
  refuse_columns: ["reject the file", "отклонить файл"],
  refused: ["Refused", "Отклонено"],
  remove: ["Remove {name}", "Убрать {name}"],
  rename: ["Rename", "Переименовать"],
  row: ["Row", "Строка"],
  row_changed: ["changed", "изменён"],
  row_deleted: ["deleted", "удалён"],
  rows_loaded: ["Loaded: {count}", "Показано: {count}"],
  rows_loaded_more: ["Loaded: {count}, more follow", "Показано: {count}, есть ещё"],
  save: ["Save", "Сохранить"],
  saved: ["“{name}” was saved.", "«{name}»: сохранено."],
  search: ["Search", "Поиск"],
  sheet: ["Sheet", "Лист"],
  show: ["Show", "Показать"],
  show_products: ["Show its products", "Показать товары"],
  tag: ["Tag", "Метка"],
  tags: ["Tags", "Метки"],
  theirs: ["Theirs", "Чужое"],
  throttled: ["Too many attempts. Try again in {seconds} s.", "Слишком много попыток. Повторите через {seconds} с."],
  unchanged: ["Unchanged", "Без изменений"],
  updated: ["Updated", "Изменено"],
  uploading: ["Uploading …", "Отправка …"],
  checking: ["The server reads the file …", "Сервер читает файл …"],
  username: ["Username", "Имя пользователя"],
  wrong_credentials: ["Wrong username or password.", "Неверное имя или пароль."],
};

const LANGUAGES = ["en", "ru"];
const preferred = navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase());
// `en` or `ru`.
export const language = preferred.find((tag) => LANGUAGES.includes(tag)) ?? "en";
const index = LANGUAGES.indexOf(language);

// Returns a text with its `{values}` filled in.
export function text(key, values = {}) {
  return TEXTS[key][index].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

const prices = new Intl.NumberFormat(language, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const counts = new Intl.NumberFormat(language);
const moments = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short", timeZone: "UTC" });

export const formatPrice = (price) => prices.format(price);
export const formatCount = (count) => counts.format(count);

// Returns a moment of the API (UTC) in the user's notation, or as it is if it is beyond what a browser can represent.
export function formatMoment(value) {
  const date = new Date(value);
  return Number.isNaN(date.getTime()) ? value : moments.format(date);
}

// Returns an error of a request in words.
export function describeError(error) {
  if (error instanceof RequestError) {
    return text(error.key);
  }
  if (error.status === 404) {
    return text("deleted_by_other");
  }
  if (error.status === 429) {
    return text("throttled", { seconds: error.headers.get("Retry-After") });
  }
  if (!error.status) {
    // a fault of this page
    reportError(error);
  }
  return text("failed", { message: error.message });
}
