//! Drawing: a header, the panes and a footer. Fits terminals of any size and omits columns that do not fit.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row as TableRow, Table};

use super::model::{Cursor, View};
use super::pane::{Column, Pane};
use super::table::{self, Row, Tone};
use super::world::{Contact, State};
use crate::base::text::{count, printable, short, span};
use crate::control::api::{ClusterStatus, Status};

/// Lines of the header.
const HEAD: u16 = 3;
/// Terminals with fewer lines than this have a header of one line.
const LOW: u16 = 9;
/// Spaces between two columns.
const GAP: u16 = 2;

/// Draws the view and fits its cursor to the terminal.
pub fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let area = frame.area();
    let head = if area.height < LOW { 1 } else { HEAD };
    let [top, tabs, body, foot] = Layout::vertical([
        Constraint::Length(head),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(head_lines(view)), top);
    let rows = table::rows(view);
    frame.render_widget(Paragraph::new(panes(view, rows.len())), tabs);
    draw_rows(frame, body, view, &rows);
    frame.render_widget(Paragraph::new(foot_line(view)), foot);
}

fn head_lines(view: &View) -> Vec<Line<'static>> {
    let world = &view.world;
    let contact = match &world.contact {
        Contact::Begun => Span::styled("waiting", tone(view, Tone::Warning)),
        Contact::Live => Span::raw("live"),
        Contact::Lost(why) => {
            let text = format!("NOT REACHABLE, waiting: {}", printable(why));
            return vec![
                Line::from(Span::styled(text, tone(view, Tone::Bad))),
                Line::from("showing the last known state"),
            ];
        }
    };
    let Some(status) = &world.status else { return vec![Line::from(contact)] };
    let mut first = vec![
        Span::styled(
            format!("{}:{}", printable(&status.host), status.port),
            Style::new().add_modifier(Modifier::BOLD),
        ),
        Span::raw("  "),
        contact,
        Span::raw(format!(", up {}", span(status.uptime_seconds))),
    ];
    let mut lines = Vec::new();
    if let Some(cluster) = &status.cluster {
        first.push(Span::raw(format!(", cluster {}: ", printable(&cluster.name))));
        first.push(agreement(view, cluster));
        first.push(Span::raw(format!(", registry {}", short(&cluster.fingerprint))));
    }
    lines.push(Line::from(first));
    lines.push(members(view, status));
    lines.push(numbers(view, status));
    lines
}

fn agreement(view: &View, cluster: &ClusterStatus) -> Span<'static> {
    match cluster.links {
        _ if cluster.left => Span::styled("left", tone(view, Tone::Warning)),
        0 if cluster.members > 1 => Span::styled("no links", tone(view, Tone::Bad)),
        0 => Span::raw("alone"),
        links if cluster.converged => {
            Span::styled(format!("all {links} peers agree"), colour(view, Color::Green))
        }
        links => {
            Span::styled(format!("{} of {links} peers agree", cluster.agreeing), tone(view, Tone::Warning))
        }
    }
}

fn members(view: &View, status: &Status) -> Line<'static> {
    if status.cluster.is_none() {
        return Line::from("no cluster: this daemon was started as epmd");
    }
    let mut spans = vec![Span::raw(format!("members {} alive", view.world.count(State::Alive)))];
    for (state, as_tone) in
        [(State::Suspect, Tone::Warning), (State::Down, Tone::Bad), (State::Left, Tone::Plain)]
    {
        let number = view.world.count(state);
        if number > 0 {
            spans.push(Span::styled(format!(", {number} {}", state.word()), tone(view, as_tone)));
        }
    }
    Line::from(spans)
}

fn numbers(view: &View, status: &Status) -> Line<'static> {
    let rates = view.world.rates.map_or_else(String::new, |rates| {
        format!(
            ", lookups {}, registrations {}",
            table::rate(rates.lookups),
            table::rate(rates.registrations)
        )
    });
    let (names, services) = match &status.cluster {
        Some(cluster) => (cluster.names, cluster.services),
        None => (status.names.registered, status.services.registered),
    };
    let text =
        format!("{}, {}{rates}", count(names, "name", "names"), count(services, "service", "services"));
    let mut spans = vec![Span::raw(text)];
    if !status.warnings.is_empty() {
        let warnings = format!(", {} (pmd status)", count(status.warnings.len(), "warning", "warnings"));
        spans.push(Span::styled(warnings, tone(view, Tone::Warning)));
    }
    Line::from(spans)
}

fn panes(view: &View, rows: usize) -> Line<'static> {
    let mut spans = Vec::new();
    for pane in Pane::ALL {
        let title = if pane == view.pane {
            format!("[{} {} ({rows})]", pane.index() + 1, pane.title())
        } else {
            format!(" {} {} ", pane.index() + 1, pane.title())
        };
        let style = if pane == view.pane { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
        spans.push(Span::styled(title, style));
    }
    Line::from(spans)
}

fn draw_rows(frame: &mut Frame<'_>, area: Rect, view: &mut View, rows: &[Row]) {
    // The headings take one line.
    let cursor = view.fit(rows.len(), usize::from(area.height.saturating_sub(1)));
    let columns = view.pane.columns();
    let shown = fitting(columns, area.width);
    let headings = shown.iter().map(|index| heading(columns, *index, cursor));
    let seen = rows.iter().enumerate().skip(cursor.first).take(usize::from(area.height));
    let lines = seen.map(|(index, row)| {
        let cells = shown.iter().map(|column| row.cells.get(*column).map_or("", |cell| cell.text.as_str()));
        let style = tone(view, row.tone);
        let marked = index == cursor.selected;
        TableRow::new(cells).style(if marked { style.add_modifier(Modifier::REVERSED) } else { style })
    });
    let widths = shown.iter().enumerate().map(|(place, index)| {
        let width = columns.get(*index).map_or(0, |column| column.width);
        if place == 0 { Constraint::Min(width) } else { Constraint::Length(width) }
    });
    let table = Table::new(lines, widths)
        .header(TableRow::new(headings).style(Style::new().add_modifier(Modifier::BOLD)))
        .column_spacing(GAP);
    frame.render_widget(table, area);
}

fn heading(columns: &[Column], index: usize, cursor: Cursor) -> String {
    let heading = columns.get(index).map_or("", |column| column.heading);
    match (cursor.sort == index, cursor.reverse) {
        (true, false) => format!("{heading}^"),
        (true, true) => format!("{heading}v"),
        (false, _) => heading.to_owned(),
    }
}

/// The columns that fit a terminal of this width.
fn fitting(columns: &[Column], width: u16) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let needed = |shown: &[usize]| -> u16 {
        shown.iter().filter_map(|index| columns.get(*index)).map(|column| column.width + GAP).sum::<u16>()
    };
    while needed(&shown) > width + GAP && shown.len() > 1 {
        let dispensable = |index: &usize| columns.get(*index).map_or(0, |column| column.dispensable);
        let Some(worst) = (0..shown.len()).max_by_key(|place| shown.get(*place).map_or(0, dispensable))
        else {
            break;
        };
        shown.remove(worst);
    }
    shown
}

fn foot_line(view: &View) -> Line<'static> {
    if view.typing {
        return Line::from(format!("/{}_   Enter accepts, Esc cancels", printable(&view.search)));
    }
    if let Some(notice) = &view.world.notice {
        return Line::from(Span::styled(printable(notice).into_owned(), tone(view, Tone::Warning)));
    }
    if !view.search.is_empty() {
        return Line::from(format!("filter /{}   Esc shows all, q quits", printable(&view.search)));
    }
    Line::from("q quit  / search  s sort  r reverse  1-4 panes  jk PgUp PgDn move")
}

fn tone(view: &View, tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Warning => colour(view, Color::Yellow),
        Tone::Bad => colour(view, Color::Red),
    }
}

fn colour(view: &View, colour: Color) -> Style {
    if view.colour { Style::new().fg(colour) } else { Style::new() }
}
