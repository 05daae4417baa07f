/** Light or dark: as the system has it, or as who looks wants it. */

const CHOICES = ['auto', 'light', 'dark'] as const;
type Choice = (typeof CHOICES)[number];

const KEY = 'tsmacvlan-theme';

/** Makes the button choose, and calls back whenever the colours are others. */
export function followTheme(button: HTMLElement, onChange: () => void): void {
  let choice = remembered();
  const apply = () => {
    if (choice === 'auto') delete document.documentElement.dataset['theme'];
    else document.documentElement.dataset['theme'] = choice;
    button.textContent = `Colours: ${choice}`;
    onChange();
  };
  button.addEventListener('click', () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length] ?? 'auto';
    remember(choice);
    apply();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', apply);
  apply();
}

/** A page from a file may have no storage of its own. */
function remembered(): Choice {
  try {
    return CHOICES.find((one) => one === localStorage.getItem(KEY)) ?? 'auto';
  } catch {
    return 'auto';
  }
}

function remember(choice: Choice): void {
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // It holds until the page is closed.
  }
}
